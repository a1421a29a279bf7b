"""Whole runs with record-level differential privacy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import BudgetError
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.common.weights import record_to_weights
from shoal.server.app import Hooks, Outcome
from shoal.simulations import datasets
from shoal.simulations.run import coordinate

SHORT = (
    "training.rounds=2",
    "training.local_epochs=1",
    "training.local_steps=5",
    "output.bootstrap=0",
    "output.compare=false",
    "resources.backend=serial",
)
PRIVATE = ("privacy.unit=record", "privacy.epsilon=8")


class Notes:
    def __init__(self) -> None:
        self.rounds: list[RoundRow] = []
        self.clients: list[ClientRow] = []
        self.sites: list[SiteRow] = []

    def on_message(self, text: str) -> None: ...

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.rounds.append(row)
        self.clients += clients

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        self.sites += rows


def scenario(*overrides: str) -> Scenario:
    return load_scenario("medical-thyroid", [*SHORT, *overrides])


def run(config: Scenario) -> tuple[list[np.ndarray], Notes]:
    found: list[Outcome] = []
    notes = Notes()
    coordinate(config, datasets.load_population(config), Hooks([notes], lambda fitted: None), found.append)
    return record_to_weights(found[0].progress.arrays), notes


def test_serial_and_ray_give_the_same_bits_and_no_training_loss(ray_session: None) -> None:
    serial, told = run(scenario(*PRIVATE))
    parallel, _ = run(scenario(*PRIVATE, "resources.backend=ray", "resources.workers=2"))
    assert all(np.array_equal(a, b) for a, b in zip(serial, parallel, strict=True))
    assert [c.error for c in told.clients] == [""] * len(told.clients)
    trained = [c for c in told.clients if c.phase == "train"]
    assert len(trained) == 2 * 5  # five sites in two rounds
    assert all(math.isnan(c.metrics["train_loss"]) for c in trained)
    assert [math.isnan(row.train_loss) for row in told.rounds] == [True] * 3


def test_the_baselines_are_those_of_a_run_without_privacy() -> None:
    """They stand for what a site can do alone, from the same weights and with the same steps."""
    plain, private = (run(scenario(*given, "output.compare=true"))[1].sites for given in ((), PRIVATE))
    for a, b in zip(plain, private, strict=True):
        for model in ("local", "centralised"):
            assert a.tests[model] == b.tests[model]
        assert a.tests["federated"] != b.tests["federated"]


def test_a_run_ends_before_the_round_that_would_pass_the_budget() -> None:
    """Five steps at the largest site, q = 32 / 3,845 with noise 0.5, have an epsilon of 4.9 already."""
    with pytest.raises(BudgetError, match=r"0 of 5 clients answered(.|\n)*after round 1 the rows would have"):
        run(scenario("privacy.unit=record", "privacy.epsilon=0.5", "privacy.noise_multiplier=0.5"))
