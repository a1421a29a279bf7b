"""Membership inference by likelihood ratio, with shadow models.

Source: Carlini, Chien, Nasr, Song, Terzis, Tramèr: Membership Inference Attacks From First Principles, IEEE
S&P 2022, section V: the logit-scaled confidence of a row's own class is roughly normal over models. How
likely is the target's confidence among models that saw the row, and among models that did not?

Deviations: one query per row (no augmentation); variances are pooled over rows below 64 shadow models, which
the paper recommends for few (section VI-B); a variance is at least `_LEAST_STD` squared.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.simulations.leakage.membership import likelihood

Matrix = NDArray[np.float64]  # (shadow models, rows)
Vector = NDArray[np.float64]  # (rows,)

_OWN_VARIANCE: Final = 64  # number of shadow models from which each row has its own variances
_LEAST_STD: Final = 1e-3  # in log-odds: shadows that agree to the last bit would divide by 0


def log_odds(labels: NDArray[Any], predictions: NDArray[Any]) -> Vector:
    """Return log(p / (1 - p)) of each row's own class, (rows,); larger means more confident."""
    own, others = likelihood(labels, predictions)
    return np.asarray(np.log(own) - np.log(others))


def scorable(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each row was seen by some shadow models but not by all; inside is (shadows, rows)."""
    return np.asarray(inside.any(axis=0) & (~inside).any(axis=0))


def online(target: Vector, shadows: Matrix, inside: NDArray[np.bool_]) -> Vector:
    """Return the log likelihood ratio of "seen" against "not seen", (rows,).

    Args:
        target: log-odds of the attacked model; shadows: of each shadow model.
        inside: whether a shadow model was trained on a row; every row is `scorable`.
    """
    return _log_density(target, *_normal(shadows, inside)) - _log_density(target, *_normal(shadows, ~inside))


def offline(target: Vector, shadows: Matrix, inside: NDArray[np.bool_]) -> Vector:
    """Return how far the target is above models that did not see the row, in their standard deviations.

    It is monotone in the paper's score, the probability of a smaller value, but does not round to 1.
    """
    mean, std = _normal(shadows, ~inside)
    return np.asarray((target - mean) / std)


def _normal(values: Matrix, chosen: NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """Return mean and standard deviation of each row over the models chosen for it, (rows,) each."""
    counts = chosen.sum(axis=0)
    mean = np.where(chosen, values, 0.0).sum(axis=0) / counts
    squares = np.where(chosen, np.square(values - mean), 0.0).sum(axis=0)
    if len(values) < _OWN_VARIANCE:
        variance = np.full(len(mean), squares.sum() / max(1, (counts - 1).sum()))
    else:
        variance = squares / np.maximum(1, counts - 1)
    return mean, np.maximum(np.sqrt(variance), _LEAST_STD)


def _log_density(x: Vector, mean: Vector, std: Vector) -> Vector:
    return np.asarray(-np.log(std) - np.square((x - mean) / std) / 2)
