"""The vector that clients sum in a training round: the update, followed by three numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.privacy.plan import SumNoise
from shoal.common.secure.fixed_point import FixedPoint

TRAILING: Final = 3  # weight, weighted loss, "within the clip norm"
LOSS_BOUND: Final = 64.0  # larger losses are clipped


@dataclass(frozen=True, slots=True)
class Summand:
    """The contribution of one client.

    Attributes:
        update: an array for each floating-point weight of the model.
        weight: in [0, 1], a factor of update and loss; loss: mean over the client's rows.
        within: 1/2 if the update's norm was within the clip norm, -1/2 if it was clipped, 0 if not reported.
        reports_weight: whether the weight itself is summed too.
    """

    update: Sequence[NDArray[Any]]
    weight: float
    loss: float
    within: float = 0.0
    reports_weight: bool = True


@dataclass(frozen=True, slots=True)
class Totals:
    """The sum over clients.

    Attributes:
        update: an array for each weight of the model: weight · update over the clients; zeros for those
            that are not of floating point.
        weight: sum of the reported weights; loss: of weight · loss; within: of the clients' `within`.
    """

    update: list[NDArray[np.float64]]
    weight: float
    loss: float
    within: float


def moving(weights: Sequence[NDArray[Any]]) -> list[int]:
    """Return which of a model's weights have an update: those of floating point."""
    return [k for k, w in enumerate(weights) if np.issubdtype(w.dtype, np.floating)]


def length(weights: Sequence[NDArray[Any]]) -> int:
    """Return the length of a client's vector for a model."""
    return sum(weights[k].size for k in moving(weights)) + TRAILING


def scales(fixed: FixedPoint) -> tuple[FixedPoint, FixedPoint, FixedPoint]:
    """Return the encoding of weight, loss and bit, with as many levels as the update."""
    return (
        FixedPoint(1.0, fixed.levels),
        FixedPoint(LOSS_BOUND, fixed.levels),
        FixedPoint(1.0, fixed.levels),
    )


def encode(summand: Summand, fixed: FixedPoint) -> NDArray[np.int64]:
    """Return a client's contribution as integers.

    The weight is rounded to a level first, so that the sum of the weights is exact.
    """
    weight = round(summand.weight * fixed.levels) / fixed.levels
    parts = [fixed.encode(u.reshape(-1), weight) for u in summand.update]
    for_weight, for_loss, for_bit = scales(fixed)
    one, loss = np.ones(1), np.array([summand.loss], np.float64)
    tail = [
        for_weight.encode(one * summand.reports_weight, weight),
        for_loss.encode(loss, weight),
        for_bit.encode(one * summand.within),
    ]
    return np.concatenate([*parts, *tail])


def decode(whole: NDArray[np.int64], weights: Sequence[NDArray[Any]], fixed: FixedPoint) -> Totals:
    """Return the sum over clients.

    Args:
        whole: the sum of outputs of `encode`; weights: of the model; fixed: the encoding.
    """
    update, position = [np.zeros(w.shape) for w in weights], 0
    for k in moving(weights):
        size = weights[k].size
        update[k] = fixed.decode(whole[position : position + size]).reshape(weights[k].shape)
        position += size
    tail = [
        float(scale.decode(number)) for scale, number in zip(scales(fixed), whole[position:], strict=True)
    ]
    return Totals(update, *tail)


def noise_shares(
    noise: SumNoise, least: int, weights: Sequence[NDArray[Any]], fixed: FixedPoint
) -> list[tuple[int, float]]:
    """Return runs of numbers in the layout, each with the standard deviation of one client's share of noise.

    Args:
        noise: in the sum; least: clients that are certain to be in it.
        weights: of the model; fixed: the encoding, in whose levels the standard deviations are.
    """
    _, _, for_bit = scales(fixed)
    each = math.sqrt(least)
    update = (length(weights) - TRAILING, noise.update / fixed.step / each)
    return [update, (TRAILING - 1, 0.0), (1, noise.within / for_bit.step / each)]
