"""What a client adds to the sum of a round of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from numpy.typing import NDArray

from shoal.clients.cohort import train_cohort
from shoal.clients.runtime import ClientRuntime
from shoal.common import records
from shoal.common.errors import DisclosureError
from shoal.common.privacy.plan import divided
from shoal.common.records import ARRAYS, EXAMPLES, METRICS_RECORD, TRAIN_LOSS, WEIGHT, WITHIN
from shoal.common.secure.fixed_point import FixedPoint
from shoal.common.secure.layout import Summand, SumNoise, moving


def summand(
    runtime: ClientRuntime,
    config: ConfigRecord,
    arrays: ArrayRecord,
    client: int,
    fixed: FixedPoint,
    noise: SumNoise,
) -> Summand:
    """Train a client for a round and return what it adds.

    Args:
        runtime, config, arrays, client: as for `train_cohort`. Of the config, "full-weight-rows" are the
            training rows from which a client counts fully, where there is no privacy.unit "client".
        fixed: how the sum is taken; noise: that the sum will have.

    Raises:
        ShoalError: as the training does.
        DisclosureError: with privacy.unit "client", the noise is less than this client's scenario wants.
    """
    alone = ConfigRecord({**config, "reduce": False})
    part = train_cohort(runtime, alone, arrays, [client])[0]
    if part.content is None:
        raise part.error or RuntimeError("local training gave nothing")
    record = part.content.metric_records[METRICS_RECORD]
    told = {name: float(value) for name, value in record.items() if isinstance(value, int | float)}
    start = records.record_to_weights(arrays)
    left = records.record_to_weights(part.content.array_records[ARRAYS])
    if runtime.scenario.privacy.unit == "client":
        update = [left[k].astype(np.float64) for k in moving(start)]
        return _protected(runtime, update, told, fixed, noise)
    update = [left[k].astype(np.float64) - start[k] for k in moving(start)]
    full = float(cast(float, config["full-weight-rows"]))
    loss = told[TRAIN_LOSS]  # with DP-SGD there is none: it would tell of rows
    return Summand(update, min(told[EXAMPLES] / full, 1.0), loss if math.isfinite(loss) else 0.0)


def _protected(
    runtime: ClientRuntime,
    update: list[NDArray[Any]],
    told: Mapping[str, float],
    fixed: FixedPoint,
    noise: SumNoise,
) -> Summand:
    """Keep a clipped update to the range of its sum, and leave out each number behind it that has no noise.

    The clip norm is the range: no number of an update of that norm is beyond it. The noise is what this
    client's own scenario wants: a server that asks for less gets nothing.
    """
    plan, wanted = runtime.client_plan, 0.0
    least = plan.noise_multiplier
    if runtime.scenario.privacy.clipping == "adaptive":
        split = divided(plan.noise_multiplier, plan.share * len(runtime.population))
        least, wanted = split.update, split.count
    if noise.update < least * fixed.range or noise.within < wanted:
        raise DisclosureError(
            f"the server asks for an update with noise of {noise.update / fixed.range:.3g} clipping norms; "
            f"this client's scenario wants {least:.3g}"
        )
    clip(update, fixed)
    return Summand(update, told[WEIGHT], 0.0, told.get(WITHIN, 0.0), reports_weight=False)


def clip(update: Sequence[NDArray[Any]], fixed: FixedPoint) -> None:
    """Scale an update, in place, to an L2 norm of at most `fixed.range`, also once it is whole numbers.

    Rounding moves each of d numbers by up to half a level and so the norm by up to √d / 2 levels: that much
    is left below the range.

    Raises:
        DisclosureError: the levels are too few for so many numbers.
    """
    norm = float(np.sqrt(sum(float(np.vdot(u, u)) for u in update)))
    rounding = fixed.error * float(np.sqrt(sum(u.size for u in update)))
    if rounding >= fixed.range:
        raise DisclosureError("so many numbers in so few levels cannot keep to privacy.clip_norm")
    factor = (fixed.range - rounding) / max(norm, fixed.range - rounding)
    for u in update:
        u *= factor
