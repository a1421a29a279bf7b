"""Converts a label column to class indices or targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shoal.common import errors
from shoal.common.config import DataConfig
from shoal.common.errors import ConfigError, DataError, SingleClassError
from shoal.common.schema import Task
from shoal.common.tabular.labels import label_text
from shoal.simulations.datasets.raw import Raw

_MOST_CLASSES = 1_000  # more distinct labels than this are not classes


def encode_labels(raw: Raw, config: DataConfig) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    """Return labels as in `Shard`, the task, and the class names.

    Without data.task, text, true/false and whole numbers with at most 20 values are classes; other numbers
    are targets.

    Raises:
        ConfigError: data.positive is not a label.
        DataError: labels are missing, or are not numbers although the task is regression.
        SingleClassError: there is only one class.
    """
    column = raw.table[raw.label]
    missing = column.null_count + _nan_count(column)
    if missing:
        raise DataError(
            f'{missing} of {len(column)} rows have no label in "{raw.label}"',
            hint="remove these rows from the file, or fill in their labels",
        )
    positive = config.positive if config.positive is not None else raw.positive
    if positive is not None:
        return _one_against_rest(column, positive, raw.label)
    task = _task(column, config)
    if task == "regression":
        return _targets(column, raw.label), "regression", ()
    return _classes(column, raw, config)


def _nan_count(column: pa.ChunkedArray) -> int:
    if not pa.types.is_floating(column.type):
        return 0
    return int(pc.sum(pc.is_nan(column)).as_py() or 0)


def _task(column: pa.ChunkedArray, config: DataConfig) -> str:
    if config.task != "auto":
        return config.task
    if pa.types.is_floating(column.type):
        values = pc.unique(column)
        whole = pc.all(pc.equal(pc.round(values), values)).as_py()
        return "classes" if whole and len(values) <= 2 else "regression"
    if pa.types.is_integer(column.type):
        return "classes" if len(pc.unique(column)) <= 20 else "regression"
    return "classes"


def _one_against_rest(
    column: pa.ChunkedArray, positive: str, label: str
) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    texts = _texts(column)
    known = [str(v) for v in pc.unique(texts).to_pylist()]
    if positive not in known:
        if len(known) > _MOST_CLASSES:
            raise ConfigError(f'data.positive: no row has the label "{positive}" in "{label}"')
        raise ConfigError(f"data.positive: {errors.unknown_name('label', positive, known)}")
    if len(known) == 1:
        raise SingleClassError(f'every row has the label "{positive}" in "{label}"')
    hit = pc.equal(texts, positive).to_numpy().astype(np.int32)
    other = next(v for v in known if v != positive) if len(known) == 2 else f"not {positive}"
    return hit, "binary", (other, positive)


def _targets(column: pa.ChunkedArray, label: str) -> NDArray[Any]:
    try:
        values = np.asarray(column.cast(pa.float64()).to_numpy(), np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(
            f'"{label}" contains values that are not numbers, but the task is regression',
            hint='set data.task = "multiclass", or convert the column to numbers',
        ) from None
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(f'{infinite} of {len(values)} rows have an infinite label in "{label}"')
    if len(values) and np.all(values == values[0]):
        raise SingleClassError(f'every row has the same value in "{label}", so there is nothing to learn')
    return values


def _classes(
    column: pa.ChunkedArray, raw: Raw, config: DataConfig
) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    values = sorted(pc.unique(column).to_pylist(), key=lambda v: (isinstance(v, str), v))
    if len(values) == 1:
        raise SingleClassError(
            f'every row has the same label in "{raw.label}"', hint="at least two classes are needed"
        )
    if len(values) > _MOST_CLASSES:
        raise DataError(
            f'"{raw.label}" has {len(values)} distinct labels; classification allows at most {_MOST_CLASSES}',
            hint='set data.task = "regression" if they are numbers to predict',
        )
    if config.task == "binary" and len(values) != 2:
        raise ConfigError(
            f'data.task is "binary", but "{raw.label}" has {len(values)} classes: '
            "set data.positive to one of them"
        )
    index = {value: i for i, value in enumerate(values)}
    encoded = np.fromiter((index[v] for v in column.to_pylist()), np.int32, len(column))
    names = raw.classes if len(raw.classes) == len(values) else tuple(label_text(v) for v in values)
    task: Task = "binary" if len(values) == 2 and config.task != "multiclass" else "multiclass"
    return encoded, task, names


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        return pa.chunked_array([pa.array([label_text(v) for v in column.to_pylist()])])
    return column.cast(pa.string())
