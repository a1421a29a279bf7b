from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from shoal.common.events import RoundRow
from shoal.simulations.convergence import unconverged

NOISE = (0.002, -0.003, 0.001, -0.001, 0.003, -0.002)


def rounds(aucs: Sequence[float], losses: Sequence[float] | None = None) -> list[RoundRow]:
    """Return rounds from 1; a loss that is not given is the same in each."""
    return [
        RoundRow(i + 1, 3, 3, 90, 0.1, losses[i] if losses else 0.5, {"auc": auc}, False, 0, 0, 1.0)
        for i, auc in enumerate(aucs)
    ]


def test_a_metric_that_still_rises_has_not_converged() -> None:
    found = unconverged(rounds([0.50 + 0.01 * i for i in range(10)]), "auc")
    assert found is not None
    assert (found.rounds, found.best_round, found.measured) == (10, 10, "auc")
    # The last quarter of 10 rounds are fewer than 4: rounds 7 to 10, of 0.01 each.
    assert (found.change, found.window) == (pytest.approx(0.03), 3)


def test_a_plateau_with_noise_has_converged() -> None:
    rising = [0.9 - 0.4 * math.exp(-i / 3) for i in range(40)]
    noisy = [value + NOISE[i % len(NOISE)] for i, value in enumerate(rising)]
    assert unconverged(rounds(noisy), "auc") is None


def test_a_peak_before_the_end_is_the_end_of_training() -> None:
    assert unconverged(rounds([0.5, 0.6, 0.7, 0.8, 0.79, 0.78, 0.77, 0.76, 0.75, 0.74]), "auc") is None


def test_a_flat_metric_with_a_falling_loss_has_not_converged() -> None:
    # The majority class wins for a while although the model learns: the loss falls by a tenth each round.
    found = unconverged(rounds([0.5] * 9 + [0.501], [0.9**i for i in range(10)]), "auc")
    assert found is not None
    assert found.measured == "loss"


def test_three_rounds_are_too_few_to_tell() -> None:
    found = unconverged(rounds([0.7, 0.8, 0.9]), "auc")
    assert found is not None
    assert found.change is None


def test_an_error_falls_where_lower_is_better() -> None:
    def mae(values: Sequence[float]) -> list[RoundRow]:
        return [
            RoundRow(i + 1, 3, 3, 90, 0.1, 0.5, {"mae": value}, False, 0, 0, 1.0)
            for i, value in enumerate(values)
        ]

    assert unconverged(mae([10.0 - i for i in range(8)]), "mae") is not None
    assert unconverged(mae([1.0 + i for i in range(8)]), "mae") is None  # it only gets worse


def test_without_a_validation_metric_the_training_loss_decides() -> None:
    rows = [RoundRow(i + 1, 3, 3, 90, 0.1, 0.9**i, {}, False, 0, 0, 1.0) for i in range(8)]
    found = unconverged(rows, None)
    assert found is not None
    assert (found.best_round, found.measured) == (8, "loss")
    settled = [RoundRow(i + 1, 3, 3, 90, 0.1, 0.5 + NOISE[i % 6], {}, False, 0, 0, 1.0) for i in range(8)]
    assert unconverged(settled, None) is None
