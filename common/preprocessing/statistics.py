"""What a client reports about its rows, so that preprocessing can be fitted without seeing them.

The disclosure rule (docs/preprocessing.md has the reasons). With m = `preprocessing.min_count` and
s = `preprocessing.min_sites`:

1. A client with fewer than m training rows only reports that it has nothing to report.
2. A client sends nothing that is based on fewer than m rows: no moment or sketch of a column with fewer than
   m values, no sketch bin, no category, no token, no class.
3. Nor may a difference of reported numbers reveal a count of 1 to m - 1 rows: such small groups are merged
   with a larger one before counting, so that every total that can be derived is 0 or at least m.
4. Extremes are the m-th smallest and largest value, rounded outward to two significant digits.
5. The server keeps a category, a token or a numeric column only if at least s clients reported it, and
   fits nothing if fewer than s clients replied.

Rules 1 to 4 are applied by `clients/preprocessing/statistics.py`. `Statistics.check` verifies them on the
results, before they are sent and again when they arrive, and raises `DisclosureError`: the rule fails
closed. Rule 5 is applied by `server/preprocessing/fit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import TypeVar

from shoal.common.errors import DataError, DisclosureError
from shoal.common.preprocessing.aggregates import CategoricalStatistics, Counts, Moments, NumericStatistics

T = TypeVar("T")


def _empty() -> Mapping[str, T]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Statistics:
    """Aggregates of one client's training rows, or of several clients' together.

    Attributes:
        sites: clients that reported something: 0 or 1 from a client.
        rows: number of rows.
        classes: rows of each class, by class index; empty for regression.
        numeric, categorical: one entry per column.
        tokens: one entry per text column: rows with each token (document frequency).
        images: one entry per image column: whether its pixels are uint8.
        sequences: one entry per sequence column: moments of each channel over all rows and steps.
    """

    sites: int = 0
    rows: int = 0
    classes: tuple[int, ...] = ()
    numeric: Mapping[str, NumericStatistics] = field(default_factory=_empty)
    categorical: Mapping[str, CategoricalStatistics] = field(default_factory=_empty)
    tokens: Mapping[str, Counts] = field(default_factory=_empty)
    images: Mapping[str, bool] = field(default_factory=_empty)
    sequences: Mapping[str, tuple[Moments, ...]] = field(default_factory=_empty)

    @classmethod
    def merge(cls, parts: Sequence[Statistics]) -> Statistics:
        """Return the statistics of all rows together; empty parts add nothing.

        The order of `parts` does not matter, not even for the last bit.

        Raises:
            DataError: the parts have different columns.
        """
        held = [part for part in parts if part.sites]
        if not held:
            return cls()
        first = held[0]
        if any(part._layout() != first._layout() for part in held):
            raise DataError(
                "clients reported different columns",
                hint="all sites must have the same columns, classes, pixel types and channels",
            )
        return cls(
            sites=sum(part.sites for part in held),
            rows=sum(part.rows for part in held),
            classes=tuple(map(sum, zip(*(part.classes for part in held), strict=True))),
            numeric={k: NumericStatistics.merge([p.numeric[k] for p in held]) for k in first.numeric},
            categorical={
                k: CategoricalStatistics.merge([p.categorical[k] for p in held]) for k in first.categorical
            },
            tokens={k: Counts.merge([p.tokens[k] for p in held]) for k in first.tokens},
            images=dict(first.images),
            sequences={
                k: tuple(Moments.merge(m) for m in zip(*(p.sequences[k] for p in held), strict=True))
                for k in first.sequences
            },
        )

    def _layout(self) -> tuple[object, ...]:
        """Return what must be equal for two statistics to be merged."""
        channels = {name: len(moments) for name, moments in self.sequences.items()}
        names = (set(self.numeric), set(self.categorical), set(self.tokens))
        return (*names, dict(self.images), channels, len(self.classes))

    def check(self, min_count: int) -> None:
        """Verify that one client's statistics follow the disclosure rule.

        Raises:
            DisclosureError: it says which column breaks which rule, without its values.
        """
        problem = next(self._problems(min_count), None)
        if problem is not None:
            raise DisclosureError(
                f"statistics of a client contain {problem}",
                hint="client and server must use the same preprocessing.min_count; "
                "docs/preprocessing.md explains the rule",
            )

    def _problems(self, min_count: int) -> Iterator[str]:
        if self.sites == 0:
            if self != Statistics():
                yield f"something, although it has fewer than {min_count} rows"
            return
        if self.sites != 1:
            yield f"a number of clients of {self.sites} instead of 1"
        if self.rows < min_count:
            yield f"{self.rows} rows, fewer than {min_count}"
        if self.classes and not self._whole(self.classes, 0, min_count):
            yield f"a class count that shows fewer than {min_count} rows"
        yield from self._value_problems(min_count)
        yield from self._count_problems(min_count)

    def _value_problems(self, min_count: int) -> Iterator[str]:
        for name, column in self.numeric.items():
            counts = (column.moments.count,)
            if column.sites != (1 if column.moments.count else 0):
                yield f'"{name}" with an impossible number of clients'
            if column.sketch.count != column.moments.count:
                yield f'"{name}" with unequal numbers of values'
            if sum(counts) + column.missing != self.rows or not self._whole(
                counts, column.missing, min_count
            ):
                yield f'"{name}" with a count that shows fewer than {min_count} rows'
            problem = column.sketch.problem(min_count)
            if problem:
                yield f'"{name}" with {problem}'
        moments = chain(
            ((name, column.moments) for name, column in self.numeric.items()),
            ((name, channel) for name, channels in self.sequences.items() for channel in channels),
        )
        for name, part in moments:
            numbers = (part.mean, part.low, part.high, part.m2)
            if part.count and not (all(map(math.isfinite, numbers)) and part.m2 >= 0):
                yield f'"{name}" with moments that are not finite'
            if part.count and part.count < min_count:
                yield f'"{name}" with moments of fewer than {min_count} values'

    def _count_problems(self, min_count: int) -> Iterator[str]:
        for name, column in self.categorical.items():
            if not self._whole(column.counts.counts, column.missing, min_count):
                yield f'"{name}" with a category count that shows fewer than {min_count} rows'
        for name, tokens in self.tokens.items():
            if any(not self._whole((count,), 0, min_count) for count in tokens.counts):
                yield f'"{name}" with a token count that shows fewer than {min_count} rows'
        tables = chain(self.tokens.items(), ((n, c.counts) for n, c in self.categorical.items()))
        for name, table in tables:
            if any(sites != 1 for sites in table.sites) or "" in table.values:
                yield f'"{name}" with an impossible value or number of clients'
            if list(table.values) != sorted(set(table.values)):
                yield f'"{name}" with values that are not unique and in order'

    def _whole(self, counts: Sequence[int], missing: int, min_count: int) -> bool:
        """Whether each count, and the number of remaining rows, is 0 or at least `min_count`."""
        rest = self.rows - sum(counts) - missing
        return all(n == 0 or n >= min_count for n in (*counts, missing, rest))
