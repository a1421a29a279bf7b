"""Converts a label column to class indices or targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shoal.common import errors
from shoal.common.config import DataConfig
from shoal.common.errors import ConfigError, DataError, SingleClassError, UnreadableDataError
from shoal.common.schema import Task
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import class_names
from shoal.common.tabular.values import is_text, plain, to_numbers, to_texts
from shoal.simulations.datasets.inference import infer
from shoal.simulations.datasets.raw import Raw

_FEW_CLASSES = 20  # whole numbers with at most so many values are classes
_ROWS_PER_CLASS = 5  # where there are more than a few classes; fewer look like identifiers or free text
_MOST_CLASSES = 1_000  # more distinct labels than this are not classes


def encode_labels(raw: Raw, config: DataConfig) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    """Return labels as in `Shard`, the task, and the class names.

    Without data.task, text, true/false and whole numbers with at most 20 values are classes; other numbers
    are targets.

    Raises:
        ConfigError: data.positive is not a label. DataError: labels are missing, or are not numbers although
        the task is regression. SingleClassError: there is only one class.
    """
    column = plain(raw.table[raw.label])
    missing = to_texts(column, raw.format).null_count
    if missing:
        raise DataError(
            f'{missing} of {len(column)} rows have no label in "{raw.label}"',
            hint="set data.args.drop_missing_labels = true to leave these rows out, or fill in their labels",
        )
    positive = config.positive if config.positive is not None else raw.positive
    if positive is not None:
        return _one_against_rest(raw, positive)
    if _task(column, raw, config) == "regression":
        return _targets(column, raw), "regression", ()
    return _classes(column, raw, config)


def rows_with_label(column: pa.ChunkedArray, raw_format: FileFormat) -> pa.ChunkedArray:
    """Return for each row whether it has a label."""
    return pc.is_valid(to_texts(plain(column), raw_format))


def _task(column: pa.ChunkedArray, raw: Raw, config: DataConfig) -> str:
    if config.task != "auto":
        return config.task
    numbers = _numbers(column, raw)
    if numbers is None:
        return "classes"
    values = pc.unique(numbers)
    finite = pc.all(pc.is_finite(values)).as_py()
    whole = finite and pc.all(pc.equal(pc.round(values), values)).as_py()
    return "classes" if whole and len(values) <= _FEW_CLASSES else "regression"


def _numbers(column: pa.ChunkedArray, raw: Raw) -> pa.ChunkedArray | None:
    """Return the labels as numbers; `None` if they are text or true/false.

    Raises:
        DataError: they are nearly all numbers.
    """
    if not is_text(column.type):
        return None if pa.types.is_boolean(column.type) else to_numbers(column, raw.label, "", raw.format)
    if raw.typed:
        return None
    found = infer(column, raw.label, raw.format, typed=False, min_count=1)
    if found.problems and len(pc.unique(column)) > _FEW_CLASSES:
        raise DataError(
            f'the label "{raw.label}" is neither text nor a number in every row',
            hint="set data.args.decimal or data.args.missing if they are numbers, "
            'or data.task = "multiclass"',
        )
    return None if is_text(found.values.type) else found.values


def _one_against_rest(raw: Raw, positive: str) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    label = raw.label
    texts = class_names(raw.table[label], raw.format, (positive,))
    known = [name for name in dict.fromkeys(texts) if name is not None]
    if positive not in known:
        if len(known) > _FEW_CLASSES:  # so many texts are hardly names of classes, and are not shown
            raise ConfigError(f'data.positive: no row has the label "{positive}" in "{label}"')
        raise ConfigError(f"data.positive: {errors.unknown_name('label', positive, known)}")
    if len(known) == 1:
        raise SingleClassError(f'every row has the label "{positive}" in "{label}"')
    hit = np.fromiter((text == positive for text in texts), np.int32, len(texts))
    other = next(v for v in known if v != positive) if len(known) == 2 else f"not {positive}"
    return hit, "binary", (other, positive)


def _targets(column: pa.ChunkedArray, raw: Raw) -> NDArray[Any]:
    label = raw.label
    try:
        values = np.asarray(to_numbers(column, label, "the labels", raw.format).to_numpy(), np.float32)
    except UnreadableDataError as error:
        raise DataError(
            f"{error.message}; but the task is regression",
            hint='set data.task = "multiclass", data.args.decimal or data.args.missing',
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
    found = class_names(column, raw.format)
    values = sorted((v for v in set(found) if v is not None), key=_number_first)
    if len(values) == 1:
        raise SingleClassError(
            f'every row has the same label in "{raw.label}"', hint="at least two classes are needed"
        )
    if len(values) > _MOST_CLASSES:
        raise DataError(
            f'"{raw.label}" has {len(values)} distinct labels; classification allows at most {_MOST_CLASSES}',
            hint='set data.task = "regression" if they are numbers to predict',
        )
    if config.task == "auto" and len(values) > _FEW_CLASSES and len(found) < _ROWS_PER_CLASS * len(values):
        raise DataError(
            f'the label "{raw.label}" has {len(values)} values in {len(found)} rows: too many to be classes',
            hint='name another column in data.label, or set data.task = "multiclass" if each is a class',
        )
    if config.task == "binary" and len(values) != 2:
        raise ConfigError(
            f'data.task is "binary", but "{raw.label}" has {len(values)} classes: '
            "set data.positive to one of them"
        )
    index = {value: i for i, value in enumerate(values)}
    encoded = np.fromiter((index[v] for v in found if v is not None), np.int32, len(found))
    names = raw.classes if len(raw.classes) == len(values) else tuple(values)
    task: Task = "binary" if len(values) == 2 and config.task != "multiclass" else "multiclass"
    return encoded, task, names


def _number_first(name: str) -> tuple[bool, float, str]:
    """Order classes that are numbers by their value, before all others."""
    try:
        return (False, float(name), name)
    except ValueError:
        return (True, 0.0, name)
