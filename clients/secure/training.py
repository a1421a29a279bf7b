"""What a client adds to the sum of a round of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from numpy.typing import NDArray

from clients.cohort import train_cohort
from clients.resident import Resident
from common import records
from common.config import PrivacyConfig
from common.errors import DisclosureError
from common.records import ARRAYS, EXAMPLES, METRICS_RECORD, TRAIN_LOSS
from common.secure.fixed_point import FixedPoint
from common.secure.layout import Noise, Summand, moving


def summand(
    resident: Resident,
    config: ConfigRecord,
    arrays: ArrayRecord,
    client: int,
    fixed: FixedPoint,
    noise: Noise,
) -> Summand:
    """Train a client for a round and return what it adds.

    Args:
        resident, config, arrays, client: as for `train_cohort`. Of the config, "full-weight-rows" are the
            training rows from which a client counts fully, where there is no privacy.unit "client".
        fixed: how the sum is taken; noise: that the sum will have.

    Raises:
        ShoalError: as the training does.
        DisclosureError: privacy.unit "client" is wanted, but there is less noise than the scenario says.
    """
    alone = ConfigRecord({**config, "reduce": False})
    part = train_cohort(resident, alone, arrays, [client])[0]
    if part.content is None:
        raise part.error or RuntimeError("local training gave nothing")
    told = cast(MetricRecord, part.content[METRICS_RECORD])
    start = records.record_to_weights(arrays)
    trained = records.record_to_weights(part.content.array_records[ARRAYS])
    update = [trained[k].astype(np.float64) - start[k] for k in moving(start)]
    rows, loss = float(cast(float, told[EXAMPLES])), float(cast(float, told[TRAIN_LOSS]))
    privacy = resident.scenario.privacy
    if privacy.unit == "client":
        return _protected(privacy, update, rows, loss, fixed, noise)
    return Summand(update, _weight(rows, float(cast(float, config["full-weight-rows"]))), loss, False)


def _weight(rows: float, full: float) -> float:
    return min(rows / full, 1.0)


def _protected(
    privacy: PrivacyConfig,
    update: list[NDArray[Any]],
    rows: float,
    loss: float,
    fixed: FixedPoint,
    noise: Noise,
) -> Summand:
    """Clip an update to the range of its sum, and leave out each number behind it that has no noise.

    The clip norm is the range: no number of an update of that norm is beyond it.
    """
    if noise.update <= 0:
        raise DisclosureError('privacy.unit is "client", but the server asks for an update without noise')
    least = (privacy.noise_multiplier or 0.0) * fixed.range
    if noise.update < least * (1 - 1e-9):
        raise DisclosureError(
            f"the server asks for noise of {noise.update:g} in the sum; by privacy.noise_multiplier it is "
            f"{least:g}"
        )
    bounded = privacy.weights == "bounded"
    if bounded and noise.weight <= 0:
        raise DisclosureError("weights by rows tell of rows, but the server asks for them without noise")
    below = clip(update, fixed)
    weight = _weight(rows, privacy.full_weight_rows) if bounded else 1.0
    return Summand(update, weight, loss if noise.loss > 0 else 0.0, below and noise.below > 0)


def clip(update: Sequence[NDArray[Any]], fixed: FixedPoint) -> bool:
    """Scale an update, in place, to an L2 norm of at most `fixed.range`, also once it is whole numbers.

    Rounding moves each of d numbers by up to half a level and so the norm by up to √d / 2 levels: that much
    is left below the range.

    Returns:
        Whether it was within the range before.

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
    return norm <= fixed.range
