"""A client's part of the sum of a training round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.local_round import LocalRound
from shoal.clients.runtime import ClientRuntime
from shoal.common.errors import DisclosureError, MessageError
from shoal.common.messages.names import WITHIN
from shoal.common.messages.requests import SecureTrainRequest
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.secure.fixed_point import FixedPoint
from shoal.common.secure.layout import Summand


def summand(runtime: ClientRuntime, request: SecureTrainRequest, client: int, fixed: FixedPoint) -> Summand:
    """Train a client for a round and return its part of the sum.

    Args:
        runtime: data and model; request: from the server; client: index.
        fixed: fixed-point format of the sum.

    Raises:
        ShoalError: as raised by the training.
        DisclosureError: with privacy.unit "client", too few levels for the size of the model.
    """
    failures: list[Exception] = []
    round_ = LocalRound(runtime, request)
    ready = round_.open([client], None, lambda client, error: failures.append(error))
    stacks = round_.one_by_one(ready, lambda client, error: failures.append(error))
    results = [one for stack in stacks for one in stack]
    if not results:
        raise failures[0] if failures else RuntimeError("local training returned no result")
    (result,) = results
    update = [u.astype(np.float64) for u in result.update]
    if mechanism_of(runtime.scenario.privacy).server_noise:
        # The clip norm is the range: no value of an update of that norm exceeds it.
        clip(update, fixed)
        return Summand(
            update, result.weight, 0.0, result.extra_metrics.get(WITHIN, 0.0), reports_weight=False
        )
    if request.full_weight_rows is None:
        raise MessageError("a request for a masked update lacks full-weight-rows")
    loss = result.loss  # NaN with DP-SGD, where it would reveal rows
    weight = min(result.examples / request.full_weight_rows, 1.0)
    return Summand(update, weight, loss if math.isfinite(loss) else 0.0)


def clip(update: Sequence[NDArray[Any]], fixed: FixedPoint) -> None:
    """Scale an update, in place, to an L2 norm of at most `fixed.range`, also after rounding to levels.

    Rounding moves each of d numbers by up to half a level, and so the norm by up to √d / 2 levels, a margin
    that is kept below the range.

    Raises:
        DisclosureError: too few levels for this many numbers.
    """
    norm = float(np.sqrt(sum(float(np.vdot(u, u)) for u in update)))
    rounding = fixed.error * float(np.sqrt(sum(u.size for u in update)))
    if rounding >= fixed.range:
        raise DisclosureError("too few levels to keep this many numbers within privacy.clip_norm")
    factor = (fixed.range - rounding) / max(norm, fixed.range - rounding)
    for u in update:
        u *= factor
