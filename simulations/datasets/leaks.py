"""Names inputs that give the label away, as a code that was entered with the diagnosis would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.schema import Column, Task
from shoal.simulations.datasets.stored import Coded, PlainColumn, Stored

_FEWEST_ROWS: Final = 50
_MOST_ROWS: Final = 20_000  # of larger data sets, these many are looked at
_MOST_CATEGORIES: Final = 0.1  # of the rows


def leaking(
    columns: Sequence[Column], stored: Mapping[str, Stored], labels: NDArray[Any], task: Task
) -> list[str]:
    """Return a note for each single column from which the label of every row follows.

    Args:
        columns: of the schema; stored: their values, by name; labels: as in `Shard`; task: of the schema.
    """
    if len(labels) < _FEWEST_ROWS:
        return []
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), _MOST_ROWS)).astype(np.int64)
    told = labels[chosen]
    return [
        f'"{column.name}" alone determines the label of every row: if it is known only after the outcome, '
        f'set data.exclude = ["{column.name}"]'
        for column in columns
        if _determines(stored[column.name], chosen, told, task)
    ]


def _determines(column: Stored, rows: NDArray[np.int64], labels: NDArray[Any], task: Task) -> bool:
    if isinstance(column, Coded):
        codes = column.codes[rows]
        groups = np.unique(codes)
        if task == "regression" or not 1 < len(groups) <= _MOST_CATEGORIES * len(rows):
            return False
        return bool(np.unique(np.stack([codes, labels]), axis=1).shape[1] == len(groups))
    if not isinstance(column, PlainColumn) or column.values.ndim > 1:
        return False
    values = np.asarray(column.values[rows], np.float64)
    known = np.isfinite(values)
    if known.sum() < _FEWEST_ROWS:
        return False
    values, labels = values[known], labels[known]
    if task == "regression":
        return bool(values.std() > 0 and abs(np.corrcoef(values, labels)[0, 1]) > 1 - 1e-9)
    # Each class occupies an interval of its own: ordered by value, the label changes once a class.
    order = np.argsort(values, kind="stable")
    changes = np.count_nonzero(np.diff(labels[order]))
    return bool(changes == len(np.unique(labels)) - 1 and changes > 0 and not _shared(values, labels))


def _shared(values: NDArray[np.float64], labels: NDArray[Any]) -> bool:
    """Whether some value occurs with more than one label."""
    pairs = np.unique(np.stack([values, labels.astype(np.float64)]), axis=1)
    return bool(pairs.shape[1] > len(np.unique(values)))
