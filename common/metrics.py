"""Metrics of predictions, and their bootstrap intervals.

Computed in numpy over all rows of a split: AUC and F1 are not means over batches. Each metric is a
function of how often each row counts, so that a bootstrap is a few matrix operations over all
resamples at once instead of a loop; a plain measurement counts every row once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import HIGHER_IS_BETTER, TASK_METRICS, TrainingConfig
from shoal.common.errors import ConfigError
from shoal.common.events import Interval
from shoal.common.schema import Task

Rows = NDArray[Any]
Counts = NDArray[np.float64]  # (resamples, rows): how often a row was drawn
Values = NDArray[np.float64]  # (resamples,)

_ROUNDING = 1e-12  # resamples with the same rows in another order differ by less
_BLOCK = 4_000_000  # counts in memory at a time; 32 MB


def default_metrics(task: Task) -> tuple[str, ...]:
    """Return the usual metrics of a task, the most informative first."""
    return TASK_METRICS[task]


def monitored(training: TrainingConfig, task: Task) -> str:
    """Return the metric that selects the best round.

    Raises:
        ConfigError: it is not one of `training.metrics`.
    """
    names = training.metrics or default_metrics(task)
    name = names[0] if training.monitor == "auto" else training.monitor
    if name not in names:
        raise ConfigError(f"training.monitor: expected one of {', '.join(names)}, got {name}")
    return str(name)


def is_better(metric: str, new: float, old: float, min_delta: float = 0.0) -> bool:
    """Whether `new` improves on `old` by more than `min_delta`; NaN never does."""
    gain = new - old if HIGHER_IS_BETTER[metric] else old - new
    return gain > min_delta


def measure(
    task: Task, labels: Rows, predictions: Rows, names: Sequence[str], loss: float | None
) -> dict[str, float]:
    """Measure predictions.

    Args:
        task: type of the learning task.
        labels: class indices or targets, (rows,).
        predictions: probabilities (rows, classes), of the positive class (rows, 1), or values (rows, 1).
        names: the metrics to compute.
        loss: the mean loss, which becomes the metric "loss".

    Returns:
        metric → value; NaN where the metric is undefined: no rows, AUC of a single class, a metric of another
        task, predictions that are not finite.
    """
    once = np.ones((1, len(labels)))
    found = {}
    for name in names:
        if name == "loss":
            found[name] = math.nan if loss is None else float(loss)
        else:
            found[name] = float(_metric(task, name, labels, predictions)(once)[0])
    return found


def bootstrap(
    task: Task,
    labels: Rows,
    predictions: Rows,
    names: Sequence[str],
    rng: np.random.Generator,
    resamples: int,
    loss_fn: Callable[[Rows, Rows], Rows] | None = None,
) -> dict[str, Interval]:
    """Measure with 95 % percentile intervals (Efron, Tibshirani: An Introduction to the Bootstrap, 1993).

    Rows are drawn with replacement. Resamples in which a metric is undefined are skipped. A metric that is
    undefined on the rows themselves has no limits either. The limits are percentiles of the resamples, so
    with very few rows the value itself may lie outside them. Resamples that all agree, as where every row is
    predicted right, say nothing about chance: an accuracy of 0 or 1 then has the exact limits of Clopper
    and Pearson (Biometrika 26, 1934), and any other metric none.

    Args:
        task, labels, predictions, names: as in `measure`.
        rng: draws the rows.
        resamples: 0 gives NaN limits.
        loss_fn: (labels, predictions) → loss of each row, (rows,); without it "loss" is NaN.
    """
    metrics = {
        name: _mean_of(loss_fn(labels, predictions))
        if name == "loss" and loss_fn is not None and len(labels)
        else _metric(task, name, labels, predictions)
        for name in names
    }
    once = np.ones((1, len(labels)))
    values = {name: float(metric(once)[0]) for name, metric in metrics.items()}
    draws: dict[str, list[Values]] = {name: [] for name in names}
    for counts in _resamples(rng, len(labels), resamples):
        for name, metric in metrics.items():
            draws[name].append(metric(counts))
    return {name: _interval(name, values[name], draws[name], len(labels)) for name in names}


def auc(labels: Rows, predictions: Rows) -> float:
    """Area under the ROC curve, as the normalised Mann-Whitney U statistic with ties counted half.

    Args:
        labels: 0 or 1, (rows,); predictions: scores (rows,) or (rows, 1).

    Returns:
        A value in [0, 1]; NaN if there is only one class.
    """
    return float(_auc(labels, predictions)(np.ones((1, len(labels))))[0]) if len(labels) else math.nan


def _resamples(rng: np.random.Generator, rows: int, resamples: int) -> Iterator[Counts]:
    """Yield the counts of all resamples, in blocks that bound the memory."""
    block = max(1, _BLOCK // max(1, rows))
    for start in range(0, resamples if rows else 0, block):
        size = min(block, resamples - start)
        drawn = rng.integers(rows, size=(size, rows)) + np.arange(size)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def _interval(name: str, value: float, draws: Sequence[Values], rows: int) -> Interval:
    every = np.concatenate([np.empty(0), *draws])
    defined = every[~np.isnan(every)]
    if math.isnan(value) or not defined.size:
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    if high - low > _ROUNDING:
        return Interval(value, float(low), float(high))
    if name == "accuracy" and value in (0.0, 1.0):
        # All of n rows are right with probability p^n, which is 0.025 at the lower limit of p.
        least: float = 0.025 ** (1 / rows)
        return Interval(value, *((least, 1.0) if value else (0.0, 1 - least)))
    return Interval(value, math.nan, math.nan)


def _metric(task: Task, name: str, labels: Rows, predictions: Rows) -> Callable[[Counts], Values]:
    """Return a metric of fixed rows as a function of the count of each row."""
    unfit = name not in _FUNCTIONS or name not in TASK_METRICS[task]
    if unfit or not len(labels) or not np.isfinite(predictions).all():
        return _undefined
    return _FUNCTIONS[name](labels, predictions)


def _undefined(counts: Counts) -> Values:
    return np.full(len(counts), math.nan)


def _ratio(above: Values, below: Values) -> Values:
    """Divide; return NaN without a warning where the divisor is 0."""
    found: Values = np.divide(above, below, out=np.full(np.shape(above), math.nan), where=below > 0)
    return found


def _mean_of(row_values: Rows) -> Callable[[Counts], Values]:
    values = np.asarray(row_values, np.float64)
    return lambda counts: _ratio(counts @ values, counts.sum(axis=1))


def _auc(labels: Rows, predictions: Rows) -> Callable[[Counts], Values]:
    scores = np.asarray(predictions, np.float64).reshape(len(labels))
    order = np.argsort(scores)
    positive = (np.asarray(labels) == 1)[order]
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where each run of equal scores starts

    def value(counts: Counts) -> Values:
        drawn = counts[:, order]
        positives = np.add.reduceat(drawn * positive, ties, axis=1)
        others = np.add.reduceat(drawn * ~positive, ties, axis=1)
        below = np.cumsum(others, axis=1) - others
        wins = (positives * (below + others / 2)).sum(axis=1)
        return _ratio(wins, positives.sum(axis=1) * others.sum(axis=1))

    return value


def _classes(predictions: Rows) -> Rows:
    if predictions.shape[1] == 1:
        return (predictions[:, 0] > 0.5).astype(np.int64)  # as Keras' BinaryAccuracy
    return np.asarray(predictions.argmax(axis=1))


def _accuracy(labels: Rows, predictions: Rows) -> Callable[[Counts], Values]:
    return _mean_of(_classes(predictions) == labels)


def _macro_f1(labels: Rows, predictions: Rows) -> Callable[[Counts], Values]:
    """Mean F1 over the classes that occur in labels or predictions."""
    predicted = _classes(predictions)
    classes = np.union1d(labels, predicted)
    true, guessed = (np.equal.outer(rows, classes).astype(np.float64) for rows in (labels, predicted))

    def value(counts: Counts) -> Values:
        hits, both = counts @ (true * guessed), counts @ (true + guessed)
        f1 = _ratio(2 * hits, both)
        occurs = both > 0
        return _ratio(np.where(occurs, f1, 0.0).sum(axis=1), occurs.sum(axis=1))

    return value


def _mae(labels: Rows, predictions: Rows) -> Callable[[Counts], Values]:
    return _mean_of(np.abs(predictions[:, 0].astype(np.float64) - labels))


def _mse(labels: Rows, predictions: Rows) -> Callable[[Counts], Values]:
    return _mean_of(np.square(predictions[:, 0].astype(np.float64) - labels))


_FUNCTIONS: Final[dict[str, Callable[[Rows, Rows], Callable[[Counts], Values]]]] = {
    "auc": _auc,
    "accuracy": _accuracy,
    "f1": _macro_f1,
    "mae": _mae,
    "mse": _mse,
}
