"""Tells from the rounds of a run whether training had converged: conclusions before that are early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoal.common.events import RoundRow
from shoal.simulations.results.sites import higher_is_better

BOUNDED: Final = ("auc", "f1", "accuracy")  # metrics between 0 and 1

_FEWEST: Final = 4  # evaluated rounds: of fewer, a trend cannot be told from noise
_WINDOW: Final = 0.25  # of the evaluated rounds: the last ones, whose trend counts
_GAIN: Final = 0.005  # over the window, of a metric between 0 and 1
_GAIN_SHARE: Final = 0.01  # over the window, as a share, of any other metric
_MOVED: Final = 0.05  # since the first round: a metric that moved by less may not have begun to rise
_LOSS_SHARE: Final = 0.05  # of the training loss over the window; it falls on after the metric has settled
_NOISE: Final = 2.0  # a slope below this many standard errors counts as none


@dataclass(frozen=True, slots=True)
class Unconverged:
    """Training that was still getting better when it ended.

    Attributes:
        rounds: that were trained.
        best_round: whose model was the best; among the last ones.
        measured: "loss" for the training loss, or the validation metric that still improved.
        change: of it over the last `window` rounds, along its trend; `None` if there were too few to tell.
    """

    rounds: int
    best_round: int
    measured: str
    change: float | None
    window: int


def unconverged(rounds: Sequence[RoundRow], metric: str | None) -> Unconverged | None:
    """Return what shows that training had not converged, or `None` if nothing does.

    It had not if the best round is among the last quarter, over which the validation metric still improved,
    by a trend that exceeds its noise and by an amount that matters. Where there is no such metric, or it has
    hardly moved since the first round, the training loss is asked instead.

    Args:
        rounds: of the run, with round 0; metric: the validation metric that selects the round, or `None`.
    """
    trained = [row for row in rounds if row.round]
    if not trained:
        return None
    evaluated = [row for row in rounds if metric is not None and math.isfinite(_value(row, metric))]
    last = trained[-1].round
    losses = [row for row in trained if math.isfinite(row.train_loss)]
    if metric is None or not evaluated:
        return _falling_loss(losses, last) if losses else None
    sign = 1 if higher_is_better(metric) else -1
    best = max(evaluated, key=lambda row: sign * _value(row, metric)).round
    if sum(row.round > 0 for row in evaluated) < _FEWEST:
        return Unconverged(last, best, metric, None, 0) if best == evaluated[-1].round else None
    window = _window(evaluated)
    if best < window[0].round:
        return None
    values = [_value(row, metric) for row in window]
    least = _GAIN if metric in BOUNDED else _GAIN_SHARE * abs(values[0])
    change = _trend([row.round for row in window], values, least)
    if change is not None and sign * change > 0:
        return Unconverged(last, best, metric, change, window[-1].round - window[0].round)
    moved = sign * (_value(window[-1], metric) - _value(evaluated[0], metric))
    started = moved > _MOVED * (1 if metric in BOUNDED else abs(_value(evaluated[0], metric)))
    return None if started else _falling_loss(losses, best)


def _falling_loss(losses: Sequence[RoundRow], best: int) -> Unconverged | None:
    if len(losses) < _FEWEST:
        return None
    window = _window(losses)
    values = [row.train_loss for row in window]
    change = _trend([row.round for row in window], values, _LOSS_SHARE * abs(values[0]))
    if change is None or change > 0:
        return None
    return Unconverged(losses[-1].round, best, "loss", change, window[-1].round - window[0].round)


def _window(rows: Sequence[RoundRow]) -> Sequence[RoundRow]:
    return rows[-max(_FEWEST, round(len(rows) * _WINDOW)) :]


def _value(row: RoundRow, metric: str) -> float:
    return row.metrics.get(metric, math.nan)


def _trend(rounds: Sequence[int], values: Sequence[float], least: float) -> float | None:
    """Return the change along the least-squares line; `None` if below `least` or within its noise."""
    at = np.asarray(rounds, np.float64) - np.mean(rounds)
    spread = float(at @ at)
    slope = float(at @ np.asarray(values)) / spread
    rest = np.asarray(values) - np.mean(values) - slope * at
    error = math.sqrt(float(rest @ rest) / (len(values) - 2) / spread)
    change = slope * (rounds[-1] - rounds[0])
    return None if abs(change) < least or abs(slope) < _NOISE * error else change
