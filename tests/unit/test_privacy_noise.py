"""Noise: its distribution, its grid, and that the operating system's is never the same twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shoal.common.privacy.noise import (
    Randomness,
    SystemRandomness,
    randomness,
    with_noise,
)

N = 200_000


def sources() -> list[Randomness]:
    return [randomness("seeded", 1, "server-noise", dispatch=3), randomness("system", 1, "server-noise")]


@pytest.mark.parametrize("draws", sources(), ids=["seeded", "system"])
def test_normal_draws_are_standard_normal(draws: Randomness) -> None:
    """Kolmogorov–Smirnov: the largest gap between both distribution functions exceeds 2.6/√n once in 10^5.

    P(gap > t/√n) → 2 e^(-2t²) = 2 e^(-13.5) = 2.7e-6 for t = 2.6 (Kolmogorov 1933).
    """
    drawn = draws.normal(N)
    assert drawn.shape == (N,)
    assert stats.kstest(drawn, "norm").statistic < 2.6 / math.sqrt(N)
    # neighbours are independent: their correlation has deviation 1/√n
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / math.sqrt(N)
    # the two halves of Box and Muller share radii, so also their squares must not be correlated
    halves = np.square(drawn[: N // 2]), np.square(drawn[N // 2 :])
    assert abs(np.corrcoef(*halves)[0, 1]) < 5 / math.sqrt(N / 2)


@pytest.mark.parametrize("draws", sources(), ids=["seeded", "system"])
def test_uniform_draws_are_uniform(draws: Randomness) -> None:
    drawn = draws.random(N)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").statistic < 2.6 / math.sqrt(N)


def test_seeded_draws_come_again_and_system_draws_never_do() -> None:
    again = [randomness("seeded", 1, "noise", dispatch=2, client=5).normal(4) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    other = randomness("seeded", 1, "noise", dispatch=3, client=5).normal(4)
    assert not np.array_equal(again[0], other)
    fresh = [randomness("system", 1, "noise", dispatch=2, client=5).normal(4) for _ in range(2)]
    assert not np.array_equal(*fresh)


def test_draws_go_on_where_the_last_call_ended() -> None:
    """Else two arrays of a model would get the same noise, and their difference none."""
    draws = SystemRandomness()
    assert not np.array_equal(draws.normal(10), draws.normal(10))


def test_noisy_sums_lie_on_one_grid_whatever_they_were() -> None:
    """Deviation 0.3: log2(0.3) = -1.7, so the step is 2^(-2-30); a sum of 1/3 has no exact place on it."""
    found = with_noise(np.full(1000, 1 / 3), 0.3, randomness("seeded", 1, "server-noise"))
    steps = found / 2.0**-32
    np.testing.assert_array_equal(steps, np.rint(steps))


def test_noise_around_a_sum_has_the_deviation_asked_for() -> None:
    """The sample deviation of n draws has deviation s/√(2n), their mean s/√n: five of each."""
    stddev = 2.5
    found = with_noise(np.full(N, 7.0), stddev, randomness("system", 1, "server-noise")) - 7.0
    assert abs(found.std() - stddev) < 5 * stddev / math.sqrt(2 * N)
    assert abs(found.mean()) < 5 * stddev / math.sqrt(N)
