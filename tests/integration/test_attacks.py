"""Attacks in whole runs: what they do to a mean, what a defence saves, and the same bits everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from common.config import Scenario
from common.events import ClientRow, RoundRow, SiteRow
from common.records import record_to_weights
from server.app import Hooks, Outcome
from simulations import datasets, load_scenario
from simulations.run import coordinate

Weights = list[np.ndarray]
ENOUGH = ("resources.backend=serial", "output.bootstrap=0", "output.compare=false")


class Notes:
    """Keeps the metrics of the last round, and what was said."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.clients: list[ClientRow] = []
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.metrics = dict(row.metrics)
        self.clients += clients

    def on_sites(self, rows: Sequence[SiteRow]) -> None: ...


def run(scenario: Scenario) -> tuple[Weights, Notes]:
    found: list[Outcome] = []
    notes = Notes()
    coordinate(
        scenario, datasets.load_population(scenario), Hooks([notes], lambda fitted: None), found.append
    )
    return record_to_weights(found[0].progress.arrays), notes


def accuracy(*overrides: str) -> float:
    """Of handwritten digits, spread evenly over ten clients, three of them malicious, after four rounds."""
    given = ("partition.scheme=iid", "training.rounds=4", "training.local_epochs=3", "attack.fraction=0.3")
    return run(load_scenario("digits", [*ENOUGH, *given, *overrides]))[1].metrics["accuracy"]


@pytest.fixture(scope="module")
def honest() -> float:
    return accuracy()


@pytest.mark.parametrize(
    ("attack", "defences"),
    [
        (
            ("attack.kind=sign-flip", "attack.args={factor=4}"),
            ("GeometricMedian", "WeightedMedian", "FLTrust"),
        ),
        (("attack.kind=scaling",), ("NormClippedMean", "WeightedMedian")),
    ],
)
def test_an_attack_ruins_a_mean_and_a_defence_saves_it(
    honest: float, attack: Sequence[str], defences: Sequence[str]
) -> None:
    assert honest > 0.85
    ruined = accuracy(*attack)
    assert ruined < 0.5
    for name in defences:
        assert accuracy(*attack, f"strategy.name={name}") > 0.75, name
