"""Secure sums for a training round, and for other vectors."""

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
    """The result of a training round, summed over all survivors.

    Attributes:
        sum: sum of the updates.
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
    round_number: int,
    content: RecordDict,
    *,
    range: float | None = None,
    noise: SumNoise = NO_NOISE,
) -> SecureRound:
    """Train a cohort for one round and return the sums over it.

    Args:
        grid, sites, scenario, clients, round_number: as for `secure_sum`.
        content: weights and config of an ordinary message "train"; where privacy.unit is not "client", its
            config has "full-weight-rows", the training rows from which a client has full weight.
        range: largest absolute value in an update, or the clip norm where privacy.unit is "client"; `None`
            for secure.range, or privacy.clip_norm.
        noise: standard deviation in the sum if as few clients as allowed stay; with more, it is larger.

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
        f"round {round_number}, secure aggregation",
    )
    summed = secure_sum(grid, sites, scenario, clients, round_number, task)
    totals = layout.decode(summed.total, weights, fixed)
    found = _sum(totals, content, loss_is_reported=not mechanism_of(scenario.privacy).per_row)
    return SecureRound(found, summed.survivors, summed.exchange)


def _sum(totals: Totals, content: RecordDict, *, loss_is_reported: bool) -> UpdateSum:
    """Return the totals as an ordinary sum of updates; what clients did not reveal is NaN or 0."""
    full = content.config_records[CONFIG].get("full-weight-rows", 0.0)
    loss = totals.loss / totals.weight if totals.weight > 0 and loss_is_reported else math.nan
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
    round_number: int = 0,
    phase: Phase = "statistics",
) -> tuple[NDArray[np.float64], SecureSum]:
    """Return the sum of one vector from each client, and the session that produced it.

    Args:
        grid, sites, scenario, clients: as for `secure_sum`.
        purpose: key of `VECTORS` in clients/secure/vectors.py; length: of the vector.
        range: largest absolute value of one number; larger ones are clipped.
        config: arguments of the purpose's function.
        stddev: of the noise in the sum, as for `train_securely`; drawn anew for each purpose and round.
        round_number: as for `secure_sum`; phase: of the rows.

    Raises:
        ConfigError, TooFewRepliesError: as `secure_sum`.
    """
    fixed = _fixed(scenario, len(clients), range, stddev / range)
    asked = {"range": range, "levels": fixed.levels, "noise": [stddev], "purpose": purpose}
    content = RecordDict({CONFIG: config or ConfigRecord()})
    task = Task(table.SECURE_VECTOR.name, content, asked, length, phase, f'secure sum of "{purpose}"')
    summed = secure_sum(grid, sites, scenario, clients, round_number, task)
    return fixed.decode(summed.total), summed


def _fixed(scenario: Scenario, clients: int, range: float, noise: float) -> FixedPoint:
    """Return the fixed-point levels of a sum; `noise` in ranges, with as few clients as allowed left."""
    # With all clients still present, all shares of the noise are present too.
    most = noise / math.sqrt(1 - scenario.secure.max_dropout)
    return FixedPoint.for_sum(clients, range, most * range)


def _in_ranges(noise: SumNoise, largest: float) -> float:
    """Return the largest noise over all numbers, each relative to its range."""
    return max(noise.update / largest, noise.within)
