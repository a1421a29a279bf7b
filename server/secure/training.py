"""A round of training, and other vectors, through secure sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.events import Phase
from shoal.common.messages import table
from shoal.common.messages.names import ARRAYS, CONFIG
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.secure import layout
from shoal.common.secure.fixed_point import FixedPoint
from shoal.common.secure.layout import SumNoise, Totals
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights
from shoal.server.exchange import Exchange
from shoal.server.secure.protocol import SecureSum, Task, secure_sum
from shoal.server.update_sum import UpdateSum

NO_NOISE = SumNoise()


@dataclass(frozen=True, slots=True)
class SecureRound:
    """What a round of training gave, over all survivors together.

    Attributes:
        sum: of what the clients have learnt.
        survivors: client indices, ascending.
        exchange: a row for each client of the cohort; no replies.
    """

    sum: UpdateSum
    survivors: Sequence[int]
    exchange: Exchange


def train_securely(
    grid: Grid,
    sites: Sites,
    scenario: Scenario,
    clients: Sequence[int],
    number: int,
    content: RecordDict,
    *,
    range: float | None = None,
    noise: SumNoise = NO_NOISE,
) -> SecureRound:
    """Train a cohort for one round and return the sums over it.

    Args:
        grid, sites, scenario, clients, number: as for `secure_sum`.
        content: weights and config of an ordinary message "train"; where privacy.unit is not "client", its
            config has "full-weight-rows", the training rows from which a client counts fully.
        range: largest size of a number of an update, and the clip norm where privacy.unit is "client"; `None`
            takes secure.range, or privacy.clip_norm.
        noise: in the sum once as few clients are left as may be; with more there is more of it.

    Raises:
        ConfigError, TooFewRepliesError: as `secure_sum`.
    """
    weights = record_to_weights(content.array_records[ARRAYS])
    largest = range or (
        scenario.privacy.clip_norm if mechanism_of(scenario.privacy).server_noise else scenario.secure.range
    )
    fixed = _fixed(scenario, len(clients), largest, _in_ranges(noise, largest))
    asked = {"range": fixed.range, "levels": fixed.levels, "noise": list(astuple(noise))}
    task = Task(
        table.SECURE_TRAIN.name,
        content,
        asked,
        layout.length(weights),
        "train",
        f"round {number}, secure aggregation",
    )
    summed = secure_sum(grid, sites, scenario, clients, number, task)
    totals = layout.decode(summed.total, weights, fixed)
    found = _sum(totals, content, loss_is_told=not mechanism_of(scenario.privacy).per_row)
    return SecureRound(found, summed.survivors, summed.exchange)


def _sum(totals: Totals, content: RecordDict, *, loss_is_told: bool) -> UpdateSum:
    """Return the totals as any sum of updates; what was not told is NaN or 0."""
    full = content.config_records[CONFIG].get("full-weight-rows", 0.0)
    loss = totals.loss / totals.weight if totals.weight > 0 and loss_is_told else math.nan
    examples = round(totals.weight * float(full))  # type: ignore[arg-type]
    return UpdateSum(totals.update, totals.weight, totals.within, loss, examples)


def sum_vectors(
    grid: Grid,
    sites: Sites,
    scenario: Scenario,
    clients: Sequence[int],
    purpose: str,
    length: int,
    range: float,
    *,
    config: ConfigRecord | None = None,
    stddev: float = 0.0,
    number: int = 0,
    phase: Phase = "statistics",
) -> tuple[NDArray[np.float64], SecureSum]:
    """Return the sum of a vector of each client, and how it went.

    Args:
        grid, sites, scenario, clients: as for `secure_sum`.
        purpose: key of `VECTORS` in clients/secure/vectors.py; length: numbers in the vector.
        range: largest size of one number; larger ones are cut to it.
        config: for the function behind the purpose.
        stddev: of the noise in the sum, as `train_securely` has it; it differs by purpose and number.
        number: as for `secure_sum`; phase: of the rows.

    Raises:
        ConfigError, TooFewRepliesError: as `secure_sum`.
    """
    fixed = _fixed(scenario, len(clients), range, stddev / range)
    asked = {"range": range, "levels": fixed.levels, "noise": [stddev], "purpose": purpose}
    content = RecordDict({CONFIG: config or ConfigRecord()})
    task = Task(table.SECURE_VECTOR.name, content, asked, length, phase, f'secure sum of "{purpose}"')
    summed = secure_sum(grid, sites, scenario, clients, number, task)
    return fixed.decode(summed.total), summed


def _fixed(scenario: Scenario, clients: int, range: float, noise: float) -> FixedPoint:
    """Return the levels of a sum with noise of so many ranges where as few as may be are left."""
    # With all clients still there, all shares of the noise are.
    most = noise / math.sqrt(1 - scenario.secure.max_dropout)
    return FixedPoint.for_sum(clients, range, most * range)


def _in_ranges(noise: SumNoise, largest: float) -> float:
    """Return the largest noise of all numbers, each in its own range."""
    return max(noise.update / largest, noise.within)
