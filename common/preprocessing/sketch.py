"""Mergeable quantile sketch with a bound on the relative error.

Paper: Charles Masson, Jee E. Rim, Homin K. Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch
with Relative-Error Guarantees", PVLDB 12(12), 2019 (VLDB 2019).

Deviations:
- The number of bins is not bounded, so bins are never collapsed to save space. At relative error
  `ALPHA` = 1 % there are 116 bins per decade of values, and a message contains only non-empty ones.
- Negative values, zero and positive values share one sorted list of signed bin codes, instead of two
  stores and a counter.
- Before a client sends a sketch, bins with too few rows are merged (`Sketch.joined`); the error bound then
  holds for the merged bins, not for each row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ALPHA: Final = 0.01
_GAMMA: Final = (1 + ALPHA) / (1 - ALPHA)
_LOG_GAMMA: Final = math.log(_GAMMA)
# Added to a value's bin index so that codes of positive values are positive and those of negative ones
# negative: indices of float64 values lie within ±37,300.
_OFFSET: Final = 1 << 17
_MAX_CODE: Final = 2 * _OFFSET


def _codes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the signed bin codes of finite values; codes increase with values, and 0 is zero."""
    with np.errstate(divide="ignore"):
        index = np.ceil(np.log(np.abs(values)) / _LOG_GAMMA)
    index = np.where(values == 0, -_OFFSET, index)
    return np.asarray(np.sign(values) * (index + _OFFSET), np.int64)


def _places(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values that represent bins: within `ALPHA` of every value of the bin."""
    index = np.abs(codes) - _OFFSET
    # 2 γ^i / (γ + 1), in logarithms because γ^i alone overflows in the highest bins
    log_place = index * _LOG_GAMMA + math.log(2 / (_GAMMA + 1))
    size = np.exp(np.minimum(log_place, math.log(np.finfo(np.float64).max)))
    return np.where(codes == 0, 0.0, np.sign(codes) * size)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A DDSketch: the number of values in each bin of a fixed logarithmic grid.

    Attributes:
        bins: signed bin codes, strictly increasing.
        counts: values in each bin, at least 1.
    """

    bins: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: NDArray[Any]) -> Sketch:
        """Return the sketch of finite values, shape (rows,)."""
        return cls._counted(_codes(np.asarray(values, np.float64)))

    @classmethod
    def placed(cls, places: NDArray[np.float64], counts: Sequence[int]) -> Sketch:
        """Return the sketch of values at `places`, each counted as often as `counts` says, at least once."""
        return cls._counted(_codes(places), counts)

    @classmethod
    def _counted(cls, codes: NDArray[np.int64], weights: Sequence[int] | None = None) -> Sketch:
        bins, where = np.unique(codes, return_inverse=True)
        each = np.ones(len(codes), np.int64) if weights is None else np.asarray(weights, np.int64)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, where, each)
        return cls(tuple(bins.tolist()), tuple(counts.tolist()))

    @classmethod
    def merge(cls, sketches: Iterable[Sketch]) -> Sketch:
        """Return the exact sketch of all values in `sketches`."""
        parts = list(sketches)
        codes = np.array([code for part in parts for code in part.bins], np.int64)
        return cls._counted(codes, [count for part in parts for count in part.counts])

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def joined(self, min_count: int) -> Sketch:
        """Return a sketch in which every bin has at least `min_count` values.

        Bins are merged with their right neighbours until a group has enough values; the remainder at the
        right end joins the last group. A group is placed at the mean of the values that represent its bins.
        Like every mean that a client sends, it is based on `min_count` values, so the place of a single
        extreme is not revealed. Fewer than `min_count` values give an empty sketch.
        """
        if self.count < min_count:
            return Sketch()
        groups: list[list[int]] = []
        held = min_count  # values in the last group; full, so that the first bin opens a group
        for position, count in enumerate(self.counts):
            if held >= min_count:
                groups.append([])
                held = 0
            groups[-1].append(position)
            held += count
        if held < min_count:
            groups[-2].extend(groups.pop())
        return self._grouped(groups)

    def _grouped(self, groups: Sequence[Sequence[int]]) -> Sketch:
        places = _places(np.array(self.bins, np.int64))
        codes, counts = [], []
        for group in groups:
            weights = np.array([self.counts[p] for p in group], np.float64)
            # divided first, so that the largest float64 values do not overflow
            mean = (places[list(group)] * (weights / weights.sum())).sum(keepdims=True)
            codes.append(self.bins[group[0]] if len(group) == 1 else int(_codes(mean)[0]))
            counts.append(int(weights.sum()))
        return self._counted(np.array(codes, np.int64), counts)

    def quantile(self, q: float) -> float:
        """Return the value with rank floor(1 + q (count - 1)), within `ALPHA` of its size.

        This is the paper's definition, numpy's method "lower". NaN for an empty sketch.
        """
        if not self.bins:
            return math.nan
        below = np.cumsum(np.array(self.counts, np.int64))
        position = int(np.searchsorted(below, math.floor(q * (self.count - 1)), side="right"))
        return float(_places(np.array([self.bins[position]], np.int64))[0])

    def problem(self, min_count: int) -> str | None:
        """Return the problem with a received sketch, or `None`."""
        if len(self.bins) != len(self.counts):
            return "a sketch with unequal numbers of bins and counts"
        if any(b <= a for a, b in zip(self.bins, self.bins[1:], strict=False)):
            return "a sketch whose bins are not in order"
        if any(abs(code) > _MAX_CODE for code in self.bins):
            return "a sketch with a bin outside the grid"
        if any(count < min_count for count in self.counts):
            return f"a sketch with a bin of fewer than {min_count} rows"
        return None
