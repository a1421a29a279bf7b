"""What clients have learnt, on its way into a reply: of one, or the mean of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from shoal.common import records
from shoal.common.records import (
    ARRAYS,
    CLIENTS,
    EPSILON,
    EPSILON_NEXT,
    EXAMPLES,
    METRICS_RECORD,
    TRAIN_LOSS,
    WEIGHT,
)

_OWN: Final = (TRAIN_LOSS, EPSILON, EPSILON_NEXT)  # numbers of each client that have no sum


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What a client has learnt; `weight` is how much it counts in a mean, `beside` what it tells further."""

    client: int
    examples: int
    loss: float
    steps: int
    seconds: float
    weights: list[NDArray[Any]]
    weight: float
    beside: Mapping[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Return what is told of the client beside its weights."""
        return {
            EXAMPLES: self.examples,
            TRAIN_LOSS: self.loss,
            "steps": self.steps,
            "seconds": self.seconds,
            **self.beside,
        }


@dataclass(slots=True)
class RunningMean:
    """The weighted mean of what clients have learnt, summed as it comes: one model's memory for any number.

    They are weighted by examples; where their updates leave, as the protection says, and summed in float64,
    so that rounding does not add to what one client can change.
    """

    clients: list[int] = field(default_factory=list)
    rows: list[LocalResult] = field(default_factory=list)
    sums: list[NDArray[Any]] = field(default_factory=list)
    scratch: list[NDArray[Any]] = field(default_factory=list)

    def add(self, one: LocalResult) -> None:
        """Add what a client has learnt."""
        if not self.sums:
            least = np.float64 if WEIGHT in one.beside else np.float32
            kinds = [np.result_type(w.dtype, least) for w in one.weights]
            self.sums = [np.zeros(w.shape, kind) for w, kind in zip(one.weights, kinds, strict=True)]
            self.scratch = [np.empty_like(total) for total in self.sums]
        for total, scratch, w in zip(self.sums, self.scratch, one.weights, strict=True):
            np.multiply(w, one.weight, out=scratch, casting="same_kind")
            np.add(total, scratch, out=total)
        self.clients.append(one.client)
        self.rows.append(replace(one, weights=[]))

    def reply(self, like: ArrayRecord, told: Mapping[str, float]) -> RecordDict:
        """Return the mean, its metrics, and a table of what each client told."""
        rows = sorted(self.rows, key=lambda row: row.client)
        weight = sum(row.weight for row in rows)
        means = [
            (total / weight).astype(array.dtype)
            for total, array in zip(self.sums, like.values(), strict=True)
        ]
        sums = {
            name: sum(row.numbers()[name] for row in rows) for name in rows[0].numbers() if name not in _OWN
        }
        numbers = {**sums, TRAIN_LOSS: sum(row.loss * row.weight for row in rows) / weight, **told}
        table = records.client_table(
            [row.client for row in rows], [{**row.numbers(), **told} for row in rows]
        )
        arrays = records.weights_to_record(means)
        return RecordDict({ARRAYS: arrays, METRICS_RECORD: records.metric_record(numbers), CLIENTS: table})


def reply(one: LocalResult, told: Mapping[str, float]) -> RecordDict:
    """Return the reply of one client; `told`: what is the same for all of its process."""
    arrays = records.weights_to_record(one.weights)
    return RecordDict({ARRAYS: arrays, METRICS_RECORD: records.metric_record({**one.numbers(), **told})})
