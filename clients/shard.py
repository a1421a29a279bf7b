"""Splits a client's rows into training, validation and test rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import DataConfig
from shoal.common.errors import EmptyClientError
from shoal.common.schema import Shard, Split
from shoal.common.seeds import generator


def split_indices(
    labels: NDArray[Any], config: DataConfig, seed: int, client: int
) -> dict[Split, NDArray[np.int64]]:
    """Split a client's rows, stratified by label and seeded.

    Rows are sorted by label (random among equals) and every 1/fraction-th is held out, from a random start.
    So each class, or each range of a regression target, is held out in proportion to within one row, and the
    number of held-out rows is that fraction of all rows to within one row.

    Args:
        labels: class indices or regression targets, (rows,).
        config: gives test_fraction and validation_fraction.
        seed: the run's seed.
        client: the client's index.

    Returns:
        split → row indices in ascending order; disjoint, together all rows.

    Raises:
        EmptyClientError: if no rows would be left for training, or for testing.
    """
    rng = generator(seed, "split", client=client)
    rows = len(labels)
    by_label = np.lexsort((rng.permutation(rows), labels))
    held = _systematic(rows, config.test_fraction, rng.random())
    test, rest = by_label[held], by_label[~held]
    share = config.validation_fraction / (1 - config.test_fraction)
    held = _systematic(len(rest), share, rng.random())
    splits: dict[Split, NDArray[np.int64]] = {
        "train": np.sort(rest[~held]),
        "validation": np.sort(rest[held]),
        "test": np.sort(test),
    }
    for name in ("train", "test"):
        if not len(splits[name]):
            raise EmptyClientError(
                f"client {client} holds {rows} rows, which leaves none for {name}",
                hint="raise partition.min_rows to exclude such clients, or use fewer clients",
            )
    return splits


def split(shard: Shard, config: DataConfig, seed: int, client: int) -> dict[Split, Shard]:
    """Split a client's shard as `split_indices` does."""
    indices = split_indices(shard.labels, config, seed, client)
    return {name: shard.take(rows) for name, rows in indices.items()}


def _systematic(rows: int, fraction: float, start: float) -> NDArray[np.bool_]:
    """Return a mask (rows,) that is true at every 1/fraction-th position, from `start` in [0, 1)."""
    steps = np.floor(np.arange(rows + 1) * fraction + start)
    return np.asarray(steps[1:] > steps[:-1])
