"""The schedule of the clients' learning rate over rounds."""

from __future__ import annotations

import math
from collections.abc import Callable

from shoal.common.config import TrainingConfig


def learning_rate(training: TrainingConfig, round_number: int) -> float:
    """Return the learning rate of a round.

    Args:
        training: gives the initial rate, the schedule and its parameters.
        round_number: in [1, training.rounds]; round 1 always has `training.learning_rate`.
    """
    return training.learning_rate * _FACTORS[training.schedule](training, round_number - 1)


def _cosine(training: TrainingConfig, passed: int) -> float:
    """Half a cosine from 1 to `decay` at the last round (Loshchilov, Hutter: SGDR, ICLR 2017)."""
    progress = passed / max(1, training.rounds - 1)
    return training.decay + (1 - training.decay) * (1 + math.cos(math.pi * progress)) / 2


_FACTORS: dict[str, Callable[[TrainingConfig, int], float]] = {
    "constant": lambda training, passed: 1.0,
    "cosine": _cosine,
    "exponential": lambda training, passed: training.decay**passed,
    "step": lambda training, passed: training.decay ** (passed // training.decay_rounds),
}
