"""Secure sums for a training round, and for other vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import RecordDict
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.common.messages import table
from shoal.common.messages.names import ARRAYS, CONFIG
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.plan import ClientPrivacyPlan
from shoal.common.secure import layout
from shoal.common.secure.encoding import training_encoding
from shoal.common.secure.layout import Totals
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights
from shoal.server.exchange import Exchange
from shoal.server.secure.protocol import Task, secure_sum
from shoal.server.update_sum import UpdateSum


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
    clip_norm: float | None = None,
    plan: ClientPrivacyPlan | None = None,
) -> SecureRound:
    """Train a cohort for one round and return the sums over it.

    Args:
        grid, sites, scenario, clients, round_number: as for `secure_sum`.
        content: weights and config of an ordinary message "train"; where privacy.unit is not "client", its
            config has "full-weight-rows", the training rows from which a client has full weight.
        clip_norm: of the round, where it is not privacy.clip_norm.
        plan: of the run, where clients add noise to the sum.

    Raises:
        ConfigError, TooFewRepliesError: as `secure_sum`.
    """
    weights = record_to_weights(content.array_records[ARRAYS])
    task = Task(
        table.SECURE_TRAIN.name,
        content,
        layout.length(weights),
        "train",
        f"round {round_number}, secure aggregation",
    )
    summed = secure_sum(grid, sites, scenario, clients, round_number, task)
    encoding = training_encoding(scenario, plan, sites.count, summed.clients, clip_norm)
    totals = layout.decode(summed.total, weights, encoding.fixed)
    found = _sum(totals, content, loss_is_reported=not mechanism_of(scenario.privacy).per_row)
    return SecureRound(found, summed.survivors, summed.exchange)


def _sum(totals: Totals, content: RecordDict, *, loss_is_reported: bool) -> UpdateSum:
    """Return the totals as an ordinary sum of updates; what clients did not reveal is NaN or 0."""
    full = content.config_records[CONFIG].get("full-weight-rows", 0.0)
    loss = totals.loss / totals.weight if totals.weight > 0 and loss_is_reported else math.nan
    examples = round(totals.weight * float(full))  # type: ignore[arg-type]
    return UpdateSum(totals.update, totals.weight, totals.within, loss, examples)
