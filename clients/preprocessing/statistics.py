"""A client's own aggregates, under the disclosure rule (`common/preprocessing/statistics.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import PreprocessingConfig
from shoal.common.preprocessing.aggregates import CategoricalStatistics, Counts, Moments, NumericStatistics
from shoal.common.preprocessing.segment import segment
from shoal.common.preprocessing.sketch import Sketch
from shoal.common.preprocessing.statistics import Statistics
from shoal.common.schema import Schema, Shard


def local_statistics(shard: Shard, schema: Schema, config: PreprocessingConfig) -> Statistics:
    """Return what a client tells about its training rows.

    Args:
        shard: the training rows.
        schema: names and kinds of the columns.
        config: gives min_count.

    Raises:
        DisclosureError: the result breaks the disclosure rule, which would be a defect of this module.
    """
    few = config.min_count
    if shard.rows < few:
        return Statistics()
    columns = shard.columns
    found = Statistics(
        sites=1,
        rows=shard.rows,
        classes=class_counts(shard.labels, schema.num_classes, few),
        numeric={name: _numeric(columns[name], few) for name in schema.names("numeric")},
        categorical={name: categories(columns[name], few) for name in schema.names("categorical")},
        tokens={name: _tokens(columns[name], few) for name in schema.names("text")},
        images={name: columns[name].dtype == np.uint8 for name in schema.names("image")},
        sequences={name: _sequence(columns[name], few) for name in schema.names("sequence")},
    )
    found.check(few)
    return found


def class_counts(labels: NDArray[Any], classes: int, few: int) -> tuple[int, ...]:
    """Return the rows of each class, 0 where they may not be told; empty for regression."""
    if not classes:
        return ()
    counts = dict(enumerate(np.bincount(labels, minlength=classes).tolist()))
    kept = tellable(counts, len(labels), few)
    return tuple(kept.get(index, 0) for index in range(classes))


def told_of(values: NDArray[Any], few: int) -> NDArray[Any]:
    """Return the values of a numeric column that may be told of; the others count as missing.

    If 1 to few - 1 values are missing, as many more are left out (the last ones) that few are: the
    number of missing values would else tell of single rows. Fewer than few are not told of at all.
    """
    there = np.flatnonzero(np.isfinite(values))
    missing = len(values) - there.size
    if 0 < missing < few:
        there = there[: max(0, len(values) - few)]
    return values[there if there.size >= few else there[:0]]


def _numeric(values: NDArray[Any], few: int) -> NumericStatistics:
    held = told_of(values, few)
    if not held.size:
        return NumericStatistics(missing=len(values))
    sketch = Sketch.of(held).joined(few)
    return NumericStatistics(Moments.of(held, min_count=few), len(values) - held.size, sketch, sites=1)


def categories(values: NDArray[Any], few: int) -> CategoricalStatistics:
    """Count the rows of each category that may be told, and those without one."""
    counts = Counter(value for value in values.tolist() if value)
    missing = len(values) - sum(counts.values())
    told = missing if missing >= few else 0  # fewer are counted with the rest, like rare categories
    kept = tellable(counts, len(values) - told, few)
    if told and 0 < len(values) - told - sum(kept.values()) < few:
        told, kept = 0, tellable(counts, len(values), few)
    return CategoricalStatistics(Counts.of(kept), told)


def _tokens(texts: NDArray[Any], few: int) -> Counts:
    rows: Counter[str] = Counter()
    for text in texts.tolist():
        rows.update(set(segment(text)))
    return Counts.of(tellable_words(rows, len(texts), few))


def tellable_words(counts: Mapping[str, int], rows: int, few: int) -> dict[str, int]:
    """Keep the counts of at least `few`; a word that all rows but fewer than `few` hold counts as in all."""
    return {word: rows if rows - n < few else n for word, n in counts.items() if n >= few}


def _sequence(values: NDArray[Any], few: int) -> tuple[Moments, ...]:
    """Describe each channel over all rows and steps; extremes have `few` rows' worth of values behind."""
    steps = values.shape[1]
    return tuple(
        Moments.of(values[:, :, channel].ravel(), min_count=few * steps) for channel in range(values.shape[2])
    )


def tellable(counts: dict[Any, int] | Counter[str], rows: int, few: int) -> dict[Any, int]:
    """Keep the counts of at least `few`, such that the rows outside them are none or at least `few`."""
    kept = sorted(((n, value) for value, n in counts.items() if n >= few), reverse=True)
    while kept and 0 < rows - sum(n for n, _ in kept) < few:
        kept.pop()  # the smallest joins the rest
    return {value: n for n, value in kept}
