"""Conversion between a model's weights and one vector of all numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def flatten(weights: Sequence[NDArray[Any]], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return all numbers of the arrays in order, (numbers,).

    Args:
        weights: at least one array, of any shapes.
        dtype: of the result; `None` for the smallest that holds all of them.
    """
    return np.concatenate([np.ravel(w) for w in weights], dtype=dtype)


def unflatten(numbers: NDArray[Any], like: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return numbers (numbers,) as arrays of the shapes and types of `like`; the inverse of `flatten`."""
    parts = np.split(numbers, np.cumsum([w.size for w in like])[:-1])
    return [part.reshape(w.shape).astype(w.dtype) for part, w in zip(parts, like, strict=True)]
