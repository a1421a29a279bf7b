"""Which rows of a client hold which names, and which buckets the names fall into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.preprocessing.statistics import categories, disclosable_words
from shoal.common.preprocessing.segment import segment
from shoal.common.preprocessing.sums.buckets import all_heavy, hashed


@dataclass(frozen=True, slots=True)
class Held:
    """The names in a column, as pairs of a row and a name, each pair once.

    Attributes:
        values: the column; words: whether names are words of a text.
        names: sorted; row, name: indices, (pairs,).
    """

    values: NDArray[Any]
    words: bool
    names: tuple[str, ...]
    row: NDArray[np.int64]
    name: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[Any], *, words: bool, tokens: int | None = None) -> Held:
        """Read a column.

        Args:
            values: categories, or texts; (rows,).
            words: the values are texts, whose words are the names.
            tokens: number of leading words of a text that count; `None` for all.
        """
        if words:
            listed = [sorted(set(segment(text)[:tokens])) for text in values.tolist()]
        else:
            listed = [[value] if value else [] for value in values.tolist()]
        names = sorted({name for row in listed for name in row})
        index = {name: i for i, name in enumerate(names)}
        row = np.repeat(np.arange(len(listed)), np.array([len(row) for row in listed], np.int64))
        name = np.array([index[name] for row in listed for name in row], np.int64)
        return cls(values, words, tuple(names), row, name)

    def rows(self) -> dict[str, int]:
        """Return name → rows that hold it."""
        counts = np.bincount(self.name, minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def disclosable(self, min_count: int) -> dict[str, int]:
        """Return name → rows of the names that the disclosure rule lets a client reveal."""
        if self.words:
            return disclosable_words(self.rows(), len(self.values), min_count)
        counts = categories(self.values, min_count).counts
        return dict(zip(counts.values, counts.counts, strict=True))

    def bucket_rows(self, column: str, buckets: int, hashes: int) -> NDArray[np.int64]:
        """Return the number of rows with a name in each bucket, (hashes, buckets); a row counts once each."""
        places = hashed(self.names, column, buckets, "sites", hashes)
        counts = np.zeros((hashes, buckets), np.int64)
        for line in range(hashes):
            pairs = np.unique(self.row * buckets + places[self.name, line])
            counts[line] = np.bincount(pairs % buckets, minlength=buckets)
        return counts


def marked(names: Sequence[str], column: str, heavy: NDArray[np.bool_]) -> list[str]:
    """Return the names whose buckets are all heavy.

    Args:
        names: of a column; heavy: (hashes, buckets).
    """
    kept = all_heavy(hashed(names, column, heavy.shape[1], "sites", heavy.shape[0]), heavy)
    return [name for name, found in zip(names, kept.tolist(), strict=True) if found]
