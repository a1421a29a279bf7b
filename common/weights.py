"""A model's weights in Flower records: packing, comparison, and a check for finite values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from shoal.common.arrays import NumpyArray, view

Weights = NDArray[Any]  # one array of a model's weights


def weights_to_record(weights: Sequence[NDArray[Any]]) -> ArrayRecord:
    """Pack a model's weights, in the order of `keras.Model.get_weights`."""
    record = ArrayRecord()
    for number, w in enumerate(weights):
        record[str(number)] = NumpyArray(np.asarray(w))
    return record


def record_to_weights(record: ArrayRecord) -> list[NDArray[Any]]:
    """Unpack what `weights_to_record` packed; the arrays may be read-only."""
    return [view(array) for array in record.values()]


def is_finite(record: ArrayRecord) -> bool:
    """Return whether every floating-point number of the record is finite."""
    return all_finite(view(array) for array in record.values())


def all_finite(arrays: Iterable[NDArray[Any]]) -> bool:
    """Return whether every floating-point number of the arrays is finite.

    A non-finite number makes the sum non-finite, and the sum takes a third of the time of checking each
    number. If the sum overflows although all numbers are finite, each is checked.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return all(
            bool(np.isfinite(a.sum()) or np.isfinite(a).all())
            for a in arrays
            if np.issubdtype(a.dtype, np.inexact)
        )


def same_shapes(record: ArrayRecord, expected: ArrayRecord) -> bool:
    """Return whether both records have the same keys, shapes and dtypes."""
    return list(record) == list(expected) and all(
        tuple(record[k].shape) == tuple(expected[k].shape) and record[k].dtype == expected[k].dtype
        for k in record
    )


def with_types_of(record: ArrayRecord, like: ArrayRecord) -> ArrayRecord:
    """Return the record with each array cast to its type in `like`.

    Some strategies compute in float64; clients get and return the model's own types.
    """
    return weights_to_record([view(record[k]).astype(like[k].dtype, copy=False) for k in like])
