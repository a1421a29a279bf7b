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
    """Return a client's statistics of its training rows.

    Args:
        shard: the training rows.
        schema: names and kinds of the columns.
        config: gives min_count.

    Raises:
        DisclosureError: the result breaks the disclosure rule, which would be a bug in this module.
    """
    min_count = config.min_count
    if shard.rows < min_count:
        return Statistics()
    columns = shard.columns
    found = Statistics(
        sites=1,
        rows=shard.rows,
        classes=class_counts(shard.labels, schema.num_classes, min_count),
        numeric={name: _numeric(columns[name], min_count) for name in schema.names("numeric")},
        categorical={name: categories(columns[name], min_count) for name in schema.names("categorical")},
        tokens={name: _tokens(columns[name], min_count) for name in schema.names("text")},
        images={name: columns[name].dtype == np.uint8 for name in schema.names("image")},
        sequences={name: _sequence(columns[name], min_count) for name in schema.names("sequence")},
    )
    found.check(min_count)
    return found


def class_counts(labels: NDArray[Any], classes: int, min_count: int) -> tuple[int, ...]:
    """Return the rows of each class, 0 where they may not be disclosed; empty for regression."""
    if not classes:
        return ()
    counts = dict(enumerate(np.bincount(labels, minlength=classes).tolist()))
    kept = disclosable(counts, len(labels), min_count)
    return tuple(kept.get(index, 0) for index in range(classes))


def disclosable_values(values: NDArray[Any], min_count: int) -> NDArray[Any]:
    """Return the values of a numeric column that may be disclosed; the others count as missing.

    If 1 to min_count - 1 values are missing, values are left out (the last ones) until min_count are missing:
    the number of missing values would otherwise reveal single rows. Fewer than min_count values are not
    disclosed at all. In a column such as 0 and 1 the mean reveals how many rows are exceptions: if 1 to
    min_count - 1 rows differ from the most common value, the column counts as constant.
    """
    there = np.flatnonzero(np.isfinite(values))
    missing = len(values) - there.size
    if 0 < missing < min_count:
        there = there[: max(0, len(values) - min_count)]
    return _without_rare_exceptions(values[there if there.size >= min_count else there[:0]], min_count)


def _without_rare_exceptions(values: NDArray[Any], min_count: int) -> NDArray[Any]:
    """Return a constant column if fewer than min_count rows differ from the most common value."""
    codes, counts = np.unique(values, return_counts=True)
    if not len(codes) or not 0 < values.size - counts.max() < min_count:
        return values
    return np.full_like(values, codes[counts.argmax()])


def _numeric(values: NDArray[Any], min_count: int) -> NumericStatistics:
    held = disclosable_values(values, min_count)
    if not held.size:
        return NumericStatistics(missing=len(values))
    sketch = Sketch.of(held).joined(min_count)
    return NumericStatistics(Moments.of(held, min_count=min_count), len(values) - held.size, sketch, sites=1)


def categories(values: NDArray[Any], min_count: int) -> CategoricalStatistics:
    """Count the rows of each category that may be disclosed, and those without one."""
    counts = Counter(value for value in values.tolist() if value)
    missing = len(values) - sum(counts.values())
    disclosed = (
        missing if missing >= min_count else 0
    )  # fewer are counted with the rest, like rare categories
    kept = disclosable(counts, len(values) - disclosed, min_count)
    if disclosed and 0 < len(values) - disclosed - sum(kept.values()) < min_count:
        disclosed, kept = 0, disclosable(counts, len(values), min_count)
    return CategoricalStatistics(Counts.of(kept), disclosed)


def _tokens(texts: NDArray[Any], min_count: int) -> Counts:
    rows: Counter[str] = Counter()
    for text in texts.tolist():
        rows.update(set(segment(text)))
    return Counts.of(disclosable_words(rows, len(texts), min_count))


def disclosable_words(counts: Mapping[str, int], rows: int, min_count: int) -> dict[str, int]:
    """Keep counts of at least min_count; a word missing in fewer than min_count rows counts as in all."""
    return {word: rows if rows - n < min_count else n for word, n in counts.items() if n >= min_count}


def _sequence(values: NDArray[Any], min_count: int) -> tuple[Moments, ...]:
    """Describe each channel over all rows and steps; extremes are based on min_count rows or more."""
    steps = values.shape[1]
    return tuple(
        Moments.of(values[:, :, channel].ravel(), min_count=min_count * steps)
        for channel in range(values.shape[2])
    )


def disclosable(counts: dict[Any, int] | Counter[str], rows: int, min_count: int) -> dict[Any, int]:
    """Keep counts of at least min_count, such that the rows outside them are none or at least min_count."""
    kept = sorted(((n, value) for value, n in counts.items() if n >= min_count), reverse=True)
    while kept and 0 < rows - sum(n for n, _ in kept) < min_count:
        kept.pop()  # the smallest joins the rest
    return {value: n for n, value in kept}
