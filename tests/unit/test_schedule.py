"""Learning rates over rounds."""

from __future__ import annotations

import pytest

from shoal.common.config import TrainingConfig
from shoal.server.schedule import learning_rate


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.8] * 5),
        ("exponential", [0.8, 0.4, 0.2, 0.1, 0.05]),  # halves each round
        ("step", [0.8, 0.8, 0.4, 0.4, 0.2]),  # halves every second round
        # 0.8 (0.5 + 0.5 (1 + cos(pi k / 4)) / 2): half of it at the end, three quarters in the middle
        ("cosine", [0.8, 0.8 * 0.926777, 0.6, 0.8 * 0.573223, 0.4]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    training = TrainingConfig.model_validate(
        {"rounds": 5, "learning_rate": 0.8, "schedule": schedule, "decay": 0.5, "decay_rounds": 2}
    )
    found = [learning_rate(training, r) for r in range(1, 6)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_round_keeps_the_rate() -> None:
    training = TrainingConfig(rounds=1, schedule="cosine", learning_rate=0.3)
    assert learning_rate(training, 1) == 0.3
