"""A fixed grid of bins over all numbers, so that a histogram has the same length at every client.

The bins are those of DDSketch (Masson, Rim, Lee, PVLDB 12(12), 2019), stored densely. Deviation: the grid
ends at `SMALLEST` and `LARGEST`. Smaller magnitudes count as zero and larger ones as the largest, so the
bound on the relative error holds between the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SMALLEST: Final = 1e-6
LARGEST: Final = 1e9


@dataclass(frozen=True, slots=True)
class Grid:
    """Bins whose places are within `alpha` of the values in them, relative to their size.

    Bin 0 contains the most negative numbers, the middle bin zero, the last bin the largest numbers.

    Attributes:
        alpha: relative error, in (0, 1).
    """

    alpha: float

    @property
    def _log_ratio(self) -> float:
        return math.log((1 + self.alpha) / (1 - self.alpha))

    @property
    def _first(self) -> int:
        """Index of the bin below the smallest positive one: sizes up to ratio ** _first count as zero."""
        return math.floor(math.log(SMALLEST) / self._log_ratio)

    @property
    def side(self) -> int:
        """Number of bins of one sign."""
        return math.ceil(math.log(LARGEST) / self._log_ratio) - self._first

    @property
    def bins(self) -> int:
        """Number of bins."""
        return 2 * self.side + 1

    def index(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the bin of each finite value."""
        exact = np.asarray(values, np.float64)
        with np.errstate(divide="ignore"):
            size = np.ceil(np.log(np.abs(exact)) / self._log_ratio) - self._first
        size = np.clip(size, 0, self.side)
        return np.asarray(self.side + np.sign(exact) * size, np.int64)

    def histogram(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the number of finite values in each bin, (bins,)."""
        return np.bincount(self.index(values).ravel(), minlength=self.bins).astype(np.int64)

    def places(self) -> NDArray[np.float64]:
        """Return the value that represents each bin, (bins,)."""
        ratio = math.exp(self._log_ratio)
        sizes = np.exp((self._first + np.arange(1, self.side + 1)) * self._log_ratio) * 2 / (ratio + 1)
        return np.concatenate([-sizes[::-1], [0.0], sizes])

    def edges(self) -> NDArray[np.float64]:
        """Return the bounds of the bins, (bins + 1,): bin i holds values from edges[i] to edges[i + 1]."""
        sizes = np.exp((self._first + np.arange(self.side + 1)) * self._log_ratio)
        return np.concatenate([-sizes[::-1], sizes])

    def joined(self, counts: NDArray[np.int64], min_count: int) -> NDArray[np.int64]:
        """Return counts that are each 0 or at least `min_count`, like `Sketch.joined`.

        Bins are merged with the next ones to the right until a group has enough values; the remainder joins
        the last group, and a group is placed in the bin of its mean. Fewer than `min_count` values give
        zeros.
        """
        joined = np.zeros_like(counts)
        if counts.sum() < min_count:
            return joined
        places = self.places()
        groups: list[list[int]] = []
        held = min_count  # values in the last group; full, so that the first bin opens a group
        for position in np.flatnonzero(counts).tolist():
            if held >= min_count:
                groups.append([])
                held = 0
            groups[-1].append(position)
            held += int(counts[position])
        if held < min_count:
            groups[-2].extend(groups.pop())
        for group in groups:
            weights = counts[group]
            mean = np.array([np.average(places[group], weights=weights)])
            joined[group[0] if len(group) == 1 else self.index(mean)[0]] += weights.sum()
        return joined
