"""The aggregates in `Statistics`, each frozen and mergeable.

Moments are merged by the pairwise formula of Tony F. Chan, Gene H. Golub, Randall J. LeVeque, "Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances", Stanford STAN-CS-79-773, 1979.
Deviation: all parts are merged at once with `math.fsum`, which rounds once, so that the result is
bit-identical for any order of the clients' replies.
"""

from __future__ import annotations

import decimal
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.preprocessing.sketch import Sketch

_DOWN = decimal.Context(prec=2, rounding=decimal.ROUND_FLOOR)
_UP = decimal.Context(prec=2, rounding=decimal.ROUND_CEILING)


def round_down(value: float) -> float:
    """Round towards minus infinity to two significant digits: 37.4 → 37, -0.123 → -0.13."""
    return float(_DOWN.create_decimal(repr(value)))


def round_up(value: float) -> float:
    """Round towards plus infinity to two significant digits: 37.4 → 38, 1201 → 1300."""
    return float(_UP.create_decimal(repr(value)))


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and spread of a numeric column.

    Attributes:
        count: number of values; if 0, mean, low and high are NaN.
        mean: their mean.
        m2: sum of their squared differences from the mean, so that the variance is m2 / count.
        low: the `min_count`-th smallest value, rounded down to two significant digits: an exact
            extreme is one row's value, and could identify a person (the oldest patient).
        high: the `min_count`-th largest value, rounded up likewise.
    """

    count: int = 0
    mean: float = math.nan
    m2: float = 0.0
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, values: NDArray[Any], *, min_count: int) -> Moments:
        """Return the moments of finite values, shape (rows,)."""
        exact = np.sort(np.asarray(values, np.float64))
        if exact.size < max(1, min_count):
            return cls()
        mean = float(exact.mean())
        # np.sort makes the order, and so the rounding of the sums, independent of the order of rows
        m2 = float(np.square(exact - mean).sum())
        ends = sorted((float(exact[min_count - 1]), float(exact[exact.size - min_count])))
        return cls(int(exact.size), mean, m2, round_down(ends[0]), round_up(ends[1]))

    @classmethod
    def merge(cls, parts: Iterable[Moments]) -> Moments:
        """Return the moments of all values together (low and high: the outermost ones)."""
        held = [part for part in parts if part.count]
        if not held:
            return cls()
        count = sum(part.count for part in held)
        mean = math.fsum(part.mean * part.count for part in held) / count
        between = math.fsum(part.count * (part.mean - mean) ** 2 for part in held)
        m2 = math.fsum(part.m2 for part in held) + between
        return cls(count, mean, m2, min(p.low for p in held), max(p.high for p in held))

    @property
    def variance(self) -> float:
        """Population variance; NaN without values."""
        return self.m2 / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """Population standard deviation; NaN without values."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of rows with each value (category or token), sorted by value.

    Attributes:
        values: the values, sorted and unique.
        counts: rows with each of them.
        sites: clients that reported each of them.
    """

    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    sites: tuple[int, ...] = ()

    @classmethod
    def of(cls, counts: dict[str, int]) -> Counts:
        """Return one client's counts."""
        values = sorted(counts)
        return cls(tuple(values), tuple(int(counts[v]) for v in values), (1,) * len(values))

    @classmethod
    def merge(cls, parts: Sequence[Counts]) -> Counts:
        """Return the sums over clients."""
        rows: Counter[str] = Counter()
        sites: Counter[str] = Counter()
        for part in parts:
            for value, count, reported in zip(part.values, part.counts, part.sites, strict=True):
                rows[value] += count
                sites[value] += reported
        values = sorted(rows)
        return cls(tuple(values), tuple(rows[v] for v in values), tuple(sites[v] for v in values))

    def most_common(self, limit: int, *, min_sites: int) -> tuple[str, ...]:
        """Return at most `limit` values that enough clients reported, by rows, ties by value."""
        kept = [
            (-count, value)
            for value, count, sites in zip(self.values, self.counts, self.sites, strict=True)
            if sites >= min_sites
        ]
        return tuple(value for _, value in sorted(kept)[:limit])


@dataclass(frozen=True, slots=True)
class NumericStatistics:
    """A numeric column.

    Attributes:
        moments: of the values that are not missing.
        missing: rows without a value.
        sketch: of the values that are not missing.
        sites: clients that reported moments.
    """

    moments: Moments = field(default_factory=Moments)
    missing: int = 0
    sketch: Sketch = field(default_factory=Sketch)
    sites: int = 0

    @classmethod
    def merge(cls, parts: Sequence[NumericStatistics]) -> NumericStatistics:
        """Return the statistics of all rows together."""
        return cls(
            Moments.merge(part.moments for part in parts),
            sum(part.missing for part in parts),
            Sketch.merge(part.sketch for part in parts),
            sum(part.sites for part in parts),
        )


@dataclass(frozen=True, slots=True)
class CategoricalStatistics:
    """A categorical column: rows of each category, and rows without one."""

    counts: Counts = field(default_factory=Counts)
    missing: int = 0

    @classmethod
    def merge(cls, parts: Sequence[CategoricalStatistics]) -> CategoricalStatistics:
        """Return the statistics of all rows together."""
        return cls(Counts.merge([p.counts for p in parts]), sum(part.missing for part in parts))
