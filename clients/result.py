"""Results of local training, on their way into a reply: of one client, or the mean of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from shoal.clients.state import StateBatch
from shoal.common.messages.names import (
    ARRAYS,
    CLIENTS,
    EPSILON,
    EPSILON_NEXT,
    EXAMPLES,
    EXTRA,
    METRICS_RECORD,
    SECONDS,
    STEPS,
    TRAIN_LOSS,
)
from shoal.common.messages.replies import client_table, metric_record
from shoal.common.origin import Origin
from shoal.common.update.mean import UpdateMean
from shoal.common.weights import weights_to_record

_NO_SUM: Final = (TRAIN_LOSS, EPSILON, EPSILON_NEXT)  # metrics of single clients that have no sum


@dataclass(frozen=True, slots=True)
class CohortReply:
    """The reply of one client, or one reply for several clients of a process.

    Attributes:
        clients: indices, ascending; content: the reply, or `None` with the reason in `error`.
        states: the new states of those clients that have one; `None` if nothing changed.
    """

    clients: Sequence[int]
    content: RecordDict | None
    error: Exception | None = None
    states: StateBatch | None = None


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The result of one client's local training.

    Attributes:
        origin: client and dispatch; examples: training rows; loss: mean over them, NaN if not reported.
        steps: optimisation steps; seconds: of local training and the steps after it.
        update: arrays of the shared weights, after clipping and noise.
        weight: weight of the update in a mean.
        extra: arrays that the algorithm sends with the update.
        state: the client's new state, empty for none.
        extra_metrics: metrics reported in addition to the usual ones.
    """

    origin: Origin
    examples: int
    loss: float
    steps: int
    seconds: float
    update: list[NDArray[Any]]
    weight: float
    extra: list[NDArray[Any]] = field(default_factory=list)
    state: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    extra_metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def client(self) -> int:
        """Index of the client."""
        return self.origin.client

    def numbers(self) -> dict[str, float]:
        """Return the metrics reported for the client."""
        return {
            EXAMPLES: self.examples,
            TRAIN_LOSS: self.loss,
            STEPS: self.steps,
            SECONDS: self.seconds,
            **self.extra_metrics,
        }


def reply_of_one(
    result: LocalResult, encoded: Sequence[NDArray[Any]], shared: Mapping[str, float]
) -> CohortReply:
    """Return the reply of one client.

    Args:
        result: of its training; encoded: its update, encoded for sending.
        shared: metrics that are the same for all clients of the process.
    """
    content = RecordDict({ARRAYS: weights_to_record(encoded)})
    if result.extra:
        content[EXTRA] = weights_to_record(result.extra)
    content[METRICS_RECORD] = metric_record({**result.numbers(), **shared})
    return CohortReply([result.client], content, states=states_of([result]))


class GroupMean:
    """The weighted mean of a group's updates, for one reply on behalf of all its clients."""

    def __init__(self) -> None:
        self._updates, self._extra = UpdateMean(), UpdateMean()
        self.results: list[LocalResult] = []  # without their arrays

    def add(self, result: LocalResult, update: Sequence[NDArray[Any]]) -> None:
        """Add a client's result, with its update as the receiver will decode it."""
        self._updates.add(update, result.weight)
        if result.extra:
            self._extra.add(result.extra, result.weight)
        self.results.append(replace(result, update=[], extra=[]))

    def reply(self, shared: Mapping[str, float]) -> CohortReply:
        """Return the mean update, its metrics, and a table with a row for each client."""
        rows = sorted(self.results, key=lambda row: row.client)
        clients = [row.client for row in rows]
        content = RecordDict({ARRAYS: weights_to_record(self._updates.mean())})
        if self._extra.count:
            content[EXTRA] = weights_to_record(self._extra.mean())
        content[METRICS_RECORD] = metric_record({**self._numbers(rows), **shared})
        content[CLIENTS] = client_table(clients, [{**row.numbers(), **shared} for row in rows])
        return CohortReply(clients, content, states=states_of(rows))

    def _numbers(self, rows: Sequence[LocalResult]) -> dict[str, float]:
        """Return sums over the clients, and the mean loss by weight."""
        listed = [row.numbers() for row in rows]
        sums = {name: sum(one[name] for one in listed) for name in listed[0] if name not in _NO_SUM}
        weight = self._updates.weight
        loss = sum(row.loss * row.weight for row in rows) / weight if weight else math.nan
        return {**sums, TRAIN_LOSS: loss}


def states_of(results: Sequence[LocalResult]) -> StateBatch | None:
    """Return the new states of clients, by ascending index; `None` if they have none."""
    if not results or not results[0].state:
        return None
    rows = sorted(results, key=lambda row: row.client)
    arrays = {name: np.stack([row.state[name] for row in rows]) for name in rows[0].state}
    return StateBatch(np.array([row.client for row in rows], np.int64), arrays)
