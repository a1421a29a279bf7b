"""The forecast of run times, against times that follow a known law."""

from __future__ import annotations

import pytest

from shoal.simulations.engine.forecast import Forecast


def test_before_anything_was_measured_more_examples_take_longer() -> None:
    forecast = Forecast()
    assert forecast.seconds(2, 30) < forecast.seconds(1, 31)
    assert forecast.seconds(1, 0) == 0


def test_one_size_gives_times_in_proportion() -> None:
    forecast = Forecast()
    for _ in range(3):
        forecast.learn(4, 400, 2.0)  # half a second for each client of 100 examples
    assert forecast.seconds(1, 100) == pytest.approx(0.5)
    assert forecast.seconds(2, 400) == pytest.approx(2.0)


@pytest.mark.parametrize(("factor", "power"), [(0.001, 1.0), (0.2, 0.25), (0.05, 0.0)])
def test_a_power_law_is_found(factor: float, power: float) -> None:
    """seconds a client = factor · examples^power, as where every step has a fixed cost (power < 1)."""
    forecast = Forecast()
    for examples in (10, 50, 100, 400):
        for clients in (1, 3):
            forecast.learn(clients, clients * examples, clients * factor * examples**power)
    assert forecast.seconds(5, 5 * 200) == pytest.approx(5 * factor * 200**power, rel=1e-6)


def test_what_was_long_ago_is_forgotten() -> None:
    forecast = Forecast()
    for _ in range(300):
        forecast.learn(1, 100, 1.0)
    for _ in range(300):
        forecast.learn(1, 100, 2.0)
    assert forecast.seconds(1, 100) == pytest.approx(2.0, rel=0.01)
