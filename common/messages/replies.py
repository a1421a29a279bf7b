"""The schemas of clients' replies, enforced by both sides.

A client checks each of its replies before sending it, and the server checks it again: a new metric or record
must be declared in `table.py` first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shoal.common.errors import DisclosureError, NonFiniteError
from shoal.common.messages.names import (
    ARRAYS,
    CLIENTS,
    EXTRA,
    MASKED,
    METRICS_RECORD,
    STATISTICS_PREFIX,
    SUMMAND,
)
from shoal.common.weights import is_finite, record_to_weights


@dataclass(frozen=True, slots=True)
class ReplySchema:
    """The content of one type of reply.

    Attributes:
        metrics: names of the single numbers that are allowed.
        needed: names of those that are required, finite and at least 0.
        update: whether it holds the encoded update of the model, and arrays that the algorithm sends with it.
        arrays: name of another record of arrays that it holds, or "".
        keys: name of a config record that it holds → all keys of that record.
        statistics: whether it holds records of aggregates, whose rule `Statistics.check` verifies.
        several: whether one reply may stand for several clients of one process: its numbers are then means by
            examples, and the record `clients` is a table with a row for each client.
    """

    metrics: frozenset[str]
    needed: tuple[str, ...]
    update: bool = False
    arrays: str = ""
    keys: Mapping[str, frozenset[str]] | None = None
    statistics: bool = False
    several: bool = False

    def records(self) -> list[str]:
        """Return the names of all records that are allowed."""
        names = [
            METRICS_RECORD,
            *((ARRAYS, EXTRA) if self.update else ()),
            *([self.arrays] if self.arrays else ()),
        ]
        names += [*(self.keys or {}), *([f"{STATISTICS_PREFIX}.*"] if self.statistics else [])]
        return [*names, CLIENTS] if self.several else names

    def check(self, kind: str, content: RecordDict) -> None:
        """Refuse a reply that holds anything beyond what its type allows.

        Shapes of an update are checked where it is decoded.

        Args:
            kind: message type, for the error text; content: the reply.

        Raises:
            DisclosureError: names the record or key, never its value.
        """
        for name, record in content.items():
            if name == METRICS_RECORD and isinstance(record, MetricRecord):
                self._check_metrics(kind, record)
            elif isinstance(record, ArrayRecord) and self._may_hold(name):
                _CHECKS.get(name, _no_check)(record)
            elif name == CLIENTS and isinstance(record, ConfigRecord) and self.several:
                self._check_table(record)
            elif isinstance(record, ConfigRecord) and self._has_keys(name, record):
                pass
            elif not (self.statistics and name.startswith(STATISTICS_PREFIX)):
                raise DisclosureError(f'a reply to "{kind}" may not contain the record "{name}"')

    def require(self, content: RecordDict) -> None:
        """Refuse a reply that lacks something required, or whose numbers cannot be averaged.

        Raises:
            DisclosureError, NonFiniteError: what is wrong, without the values.
        """
        update, numbers = content.get(ARRAYS), content.get(METRICS_RECORD)
        if self.update and update is None:
            raise DisclosureError("the reply contains no update")
        for name in (ARRAYS, EXTRA):
            record = content.get(name)
            if isinstance(record, ArrayRecord) and not is_finite(record):
                raise NonFiniteError("the update holds NaN or infinity")
        for name in self.needed:
            number = numbers.get(name) if isinstance(numbers, MetricRecord) else None
            if not isinstance(number, int | float) or not 0 <= number < math.inf:
                raise DisclosureError(f'the reply has no usable value for "{name}"')

    def _has_keys(self, name: str, record: ConfigRecord) -> bool:
        return self.keys is not None and self.keys.get(name) == frozenset(record)

    def _may_hold(self, name: str) -> bool:
        return (self.update and name in (ARRAYS, EXTRA)) or (bool(name) and name == self.arrays)

    def _check_metrics(self, kind: str, record: MetricRecord) -> None:
        extra = sorted(set(record) - self.metrics)
        if extra:
            raise DisclosureError(
                f'a reply to "{kind}" may not contain the metrics {", ".join(extra)}',
                hint="declare them in common/messages/table.py if they may leave a client",
            )
        lists = sorted(name for name, value in record.items() if isinstance(value, list))
        if lists:
            raise DisclosureError(
                f'a reply to "{kind}" may contain single numbers only; these are lists: {", ".join(lists)}'
            )

    def _check_table(self, record: ConfigRecord) -> None:
        extra = sorted(set(record) - self.metrics - {"client"})
        if extra:
            raise DisclosureError(f"a table of clients may not contain {', '.join(extra)}")


def _no_check(record: ArrayRecord) -> None:
    """Accept: shapes of updates are checked where they are decoded."""


def _check_summand(record: ArrayRecord) -> None:
    arrays = record_to_weights(record)
    if len(arrays) != 1 or arrays[0].dtype != np.int64 or arrays[0].ndim != 1:
        raise DisclosureError("a summand must be one vector of integers")


def _check_masked(record: ArrayRecord) -> None:
    arrays = [(array.dtype, len(array.shape)) for array in record.values()]
    if arrays != [("uint32", 1)]:
        raise DisclosureError("a masked input must be one vector of integers modulo 2^32")


_CHECKS: Final = {SUMMAND: _check_summand, MASKED: _check_masked}


def metric_record(values: Mapping[str, float]) -> MetricRecord:
    """Return a MetricRecord of single numbers."""
    return MetricRecord(dict(values))


def client_table(clients: Sequence[int], numbers: Sequence[Mapping[str, float]]) -> ConfigRecord:
    """Return a table of the numbers of several clients, which all have the same names.

    Args:
        clients: indices; numbers: the metrics of each.
    """
    columns = {name: [row[name] for row in numbers] for name in numbers[0]}
    return ConfigRecord({"client": list(clients), **columns})


def client_rows(table: ConfigRecord) -> dict[int, dict[str, float]]:
    """Return client index → metrics, the inverse of `client_table`."""
    clients, *columns = (cast("list[float]", values) for values in table.values())
    names = list(table)[1:]
    rows = zip(*columns, strict=True)
    return {
        int(client): dict(zip(names, map(float, row), strict=True))
        for client, row in zip(clients, rows, strict=True)
    }


def numbers_of(content: RecordDict) -> dict[str, float]:
    """Return the single numbers of a reply."""
    record: Any = content.get(METRICS_RECORD) or {}
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}
