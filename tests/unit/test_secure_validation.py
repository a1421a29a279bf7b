"""What is found wrong with a scenario that wants secure aggregation, before it is run."""

from __future__ import annotations

import re

import pytest

from shoal.common.config.file import load_scenario
from shoal.simulations.checks.scenario import validate


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("strategy.name=Krum", "Krum needs the update of each client.* FedAvg, FedAvgM, FedProx"),
        ("strategy.name=FedMedian", "FedMedian needs the update of each client"),
        ("strategy.name=simulations.run:Mine", "simulations.run:Mine is your own"),
        ("update.compress=int8", r"update\.compress"),
        ("server.round_retries=1", r"server\.round_retries = 1"),
        ("privacy.unit=local", r'privacy\.unit = "local"'),
        ("strategy.sampling=poisson", r'strategy\.sampling = "poisson"'),
        ("resources.execution_mode=stacked", r"resources\.execution_mode"),
        ("strategy.clients_per_round=2", "of 2 clients.* at least 3"),
        ("secure.max_colluding=0.49", "of 9 clients, of which 4 may drop out and 4 collude"),
    ],
)
def test_what_does_not_go_with_sums_is_refused(setting: str, says: str) -> None:
    # of 9 clients, 4 of whom may be lost, 5 stay
    settings = ["secure.aggregation=true", "partition.clients=9", "secure.max_dropout=0.49", setting]
    problems = validate(load_scenario("digits", settings), deep=False)
    assert any(re.search(says, problem) for problem in problems), problems


@pytest.mark.parametrize("strategy", ["FedAvg", "FedProx", "FedAdam"])
def test_strategies_of_means_are_fine(strategy: str) -> None:
    settings = ["secure.aggregation=true", f"strategy.name={strategy}", "privacy.unit=record"]
    assert [p for p in validate(load_scenario("digits", settings), deep=False) if "secure" in p] == []


def test_sites_that_only_the_data_reports_are_counted_too() -> None:
    """Thyroid data come from five sites: with two that may be lost and two that collude, none hides."""
    settings = ["secure.aggregation=true", "secure.max_dropout=0.4", "secure.max_colluding=0.4"]
    (problem,) = validate(load_scenario("medical-thyroid", settings), deep=True)
    assert "of 5 clients, of which 2 may drop out and 2 collude" in problem
