"""Columns of a data set in the forms that workers share, each with its rows taken on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Coded:
    """A categorical column: `codes` (rows,) int32 into `values` (object, of `str`); -1 where missing."""

    codes: NDArray[np.int32]
    values: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the texts of rows, `None` where missing."""
        codes = self.codes[rows]
        known = np.empty(len(self.values) + 1, object)  # the last entry, for code -1, stays None
        known[:-1] = self.values
        return np.asarray(known[codes])


@dataclass(frozen=True, slots=True)
class Texts:
    """A text column in Arrow: Python strings are made only for the requested rows."""

    array: pa.LargeStringArray

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the texts of rows, "" where missing."""
        taken = pc.fill_null(self.array.take(pa.array(rows)), "")
        return np.asarray(taken.to_numpy(zero_copy_only=False), object)


@dataclass(frozen=True, slots=True)
class PlainColumn:
    """A numeric, image or sequence column."""

    values: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of rows."""
        return self.values[rows]


Stored = Coded | Texts | PlainColumn
