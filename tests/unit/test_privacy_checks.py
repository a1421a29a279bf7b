"""What `[privacy]` does not go with is told before anything runs, all at once, with the way out."""

from __future__ import annotations

import pytest

from shoal.common.config.file import load_scenario
from shoal.simulations.checks.privacy import privacy_problems
from shoal.simulations.checks.scenario import validate


def problems(*given: str) -> list[str]:
    return privacy_problems(load_scenario("digits", list(given)))


@pytest.mark.parametrize("unit", ["client", "local", "record"])
def test_a_guarantee_with_noise_or_budget_alone_is_fine(unit: str) -> None:
    assert problems(f"privacy.unit={unit}", "privacy.epsilon=3") == []
    assert problems(f"privacy.unit={unit}", "privacy.noise_multiplier=1") == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["privacy.epsilon=3"], 'has no effect while privacy.unit is "none"'),
        (["privacy.unit=client"], "needs privacy.epsilon"),
        (
            ["privacy.unit=record", "privacy.epsilon=3", "privacy.statistics_epsilon=3"],
            "leaves nothing of privacy.epsilon = 3",
        ),
        (["privacy.unit=local", "privacy.epsilon=3", "privacy.clipping=adaptive"], 'needs privacy.unit'),
        (["privacy.unit=record", "privacy.epsilon=3", "privacy.weights=bounded"], 'needs privacy.unit'),
        (["privacy.unit=client", "privacy.epsilon=3", "update.clip_norm=1"], "already does this"),
        (["privacy.unit=local", "privacy.epsilon=3", "update.noise_stddev=1"], "already does this"),
        (["privacy.unit=client", "privacy.epsilon=3", "update.compress=int8"], "than privacy.clip_norm"),
        (
            ["privacy.unit=record", "privacy.epsilon=3", "training.early_stopping.patience=2"],
            "the decision to stop would use validation rows",
        ),
        (["privacy.unit=client", "privacy.epsilon=3", "strategy.name=FedMedian"], "FedMedian needs the"),
        (["privacy.unit=client", "privacy.epsilon=3", "strategy.name=mine:Own"], "mine:Own needs the update"),
        (
            [
                "privacy.unit=client", "privacy.epsilon=3", "privacy.accountant=pld",
                "strategy.clients_per_round=5",
            ],
            "no bound for samples of fixed size",
        ),
    ],
)  # fmt: skip
def test_what_breaks_the_guarantee_is_refused(given: list[str], says: str) -> None:
    found = problems(*given)
    assert len(found) == 1
    assert says in found[0]


def test_local_noise_leaves_the_choice_of_strategy() -> None:
    """The update that leaves is private by itself, whoever looks at it."""
    assert problems("privacy.unit=local", "privacy.epsilon=3", "strategy.name=FedMedian") == []


def test_validate_includes_the_privacy_checks() -> None:
    scenario = load_scenario("digits", ["privacy.unit=client"])
    assert any("needs privacy.epsilon" in line for line in validate(scenario, deep=False))
