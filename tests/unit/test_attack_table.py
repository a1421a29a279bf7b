"""The cells of an attack table, how a row is judged, and what the page says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.simulations.checks.scenario import validate
from shoal.simulations.report import render_attacks
from shoal.simulations.report.attacks import headline, view
from shoal.simulations.sweeps.attack_cells import (
    Choice,
    attackers,
    default_attacks,
    default_defences,
    make_cells,
    parse,
)
from shoal.simulations.sweeps.attack_measure import classes
from shoal.simulations.sweeps.attack_table import AttackTable, Row


def test_names_and_arguments_are_read() -> None:
    found = parse("sign-flip, backdoor(target=7, factor=2.5),my.module:Class(share=0.5)")
    assert found == [
        Choice("sign-flip"),
        Choice("backdoor", {"target": 7, "factor": 2.5}),
        Choice("my.module:Class", {"share": 0.5}),
    ]
    assert [choice.label for choice in found[:2]] == ["sign-flip", "backdoor(target=7, factor=2.5)"]


@pytest.mark.parametrize("text", ["", "sign flip", "backdoor(target=)", "a,,b"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a name|cannot be read"):
        parse(text)


def test_every_attack_meets_every_defence_and_both_baselines_are_there_once() -> None:
    scenario = load_scenario("digits", ["strategy.evaluate_clients=4", "output.compare=true"])
    cells = make_cells(scenario, 10, parse("none,sign-flip(factor=2)"), parse("FedAvg,FedMedian"))
    assert [(cell.attack.name, cell.defence.name) for cell in cells] == [
        ("none", "FedAvg"),
        ("none", "FedMedian"),
        ("sign-flip", "FedAvg"),
        ("sign-flip", "FedMedian"),
    ]
    last = cells[-1].scenario
    assert (last.attack.kind, last.attack.args) == ("sign-flip", {"factor": 2})
    assert (last.strategy.name, last.strategy.evaluate_clients) == ("FedMedian", 4)
    assert not last.output.compare
    assert last.name == "sign-flip-FedMedian"
    assert scenario.strategy.name == "FedAvg"  # the argument is as it was


def test_a_defence_is_reported_what_it_must_know_unless_it_is_said() -> None:
    """Two of ten are malicious: 3 and 6, so that client 0 may be trusted; 10 - 2 - 2 = 6 are selected."""
    scenario = load_scenario("digits", ["attack.fraction=0.2"])
    assert attackers(scenario, 10) == {3, 6}
    choices = parse("MultiKrum,FLTrust,FedTrimmedAvg,Krum(num_malicious_nodes=1)")
    args = [dict(cell.scenario.strategy.args) for cell in make_cells(scenario, 10, [], choices)]
    assert args == [
        {},
        {"num_malicious_nodes": 2, "num_nodes_to_select": 6},
        {"trusted": 0},
        {"beta": 0.25},  # ⌊0.25 · 10⌋ = 2 at each end
        {"num_malicious_nodes": 1},
    ]


def test_a_regression_has_no_backdoor_by_default() -> None:
    names = [choice.name for choice in default_attacks(load_scenario("linear", ["data.task=regression"]))]
    assert "sign-flip" in names
    assert "backdoor" not in names
    assert "backdoor" in [choice.name for choice in default_attacks(load_scenario("digits"))]


def test_fltrust_is_for_rounds_of_all_clients() -> None:
    drawn = load_scenario("digits", ["strategy.clients_per_round=4"])
    assert "FLTrust" not in [choice.name for choice in default_defences(drawn)]
    assert "FLTrust" in [choice.name for choice in default_defences(load_scenario("digits"))]
    wrong = load_scenario("digits", ["strategy.clients_per_round=4", "strategy.name=FLTrust"])
    assert "FLTrust needs its trusted client in every round" in validate(wrong, deep=False)[0]


def test_predictions_become_classes() -> None:
    assert classes(np.array([[0.2], [0.7]])).tolist() == [0, 1]
    assert classes(np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])).tolist() == [1, 0]


ROWS = [
    Row("none", "FedAvg", "accuracy", last=0.9, chosen=0.9, success=0.01),
    Row("none", "Krum<b>", "accuracy", last=0.85, chosen=0.85, success=0.02),
    Row("sign-flip", "FedAvg", "accuracy", last=0.1, chosen=0.3),
    Row("sign-flip", "Krum<b>", "accuracy", last=0.8, chosen=0.8),
    Row("backdoor", "FedAvg", "accuracy", last=0.88, chosen=0.88, success=0.97),
    Row("backdoor", "Krum<b>", "accuracy", error="WorkerError: died"),
]


def test_the_headline_names_the_worst_attack_and_the_best_defence() -> None:
    assert headline(ROWS[:5], "accuracy") == (
        "Under sign-flip, plain averaging goes from accuracy 0.900 to 0.100; Krum<b> keeps 0.800 or better "
        "under every attack tried."
    )
    only = [row for row in ROWS if row.defence == "FedAvg"]
    assert "no defence does better" in headline(only, "accuracy")
    assert headline(ROWS[:2], "accuracy") == "No attack was measured against plain averaging."
    # a model that diverged is worse than any number
    lost = [*ROWS[:4], Row("scaling", "FedAvg", "accuracy", diverged=True)]
    assert headline(lost, "accuracy").startswith("Under scaling, plain averaging diverges; Krum<b> keeps 0.8")
    all_lost = [*lost, Row("scaling", "Krum<b>", "accuracy", diverged=True)]
    assert "no defence does better" in headline(all_lost, "accuracy")
    # a lower loss is better
    losses = [Row("none", "FedAvg", "loss", last=0.2), Row("gaussian", "FedAvg", "loss", last=9.0)]
    assert "loss 0.200 to 9.000" in headline(losses, "loss")


def test_the_page_holds_the_numbers_and_escapes_names() -> None:
    table = AttackTable(load_scenario("digits"), 10, ["client-3"], ROWS)
    shown = view(table)
    assert shown["kept"] == [
        ("none", ["0.900", "0.850"]),
        ("sign-flip", ["0.100", "0.800"]),
        ("backdoor", ["0.880", "–"]),
    ]
    assert shown["success_table"] == [("none", ["0.010", "0.020"]), ("backdoor", ["0.970", "–"])]
    assert shown["backdoors"] == ["backdoor succeeds on 97% of the triggered rows with FedAvg."]
    more = [*ROWS[:5], replace(ROWS[5], error="", success=0.1)]
    assert view(AttackTable(table.scenario, 10, [], more))["backdoors"] == [
        "backdoor succeeds on 10% of the triggered rows with Krum<b>, and on 97% with FedAvg."
    ]
    trace = shown["map"]["data"][0]
    assert trace["y"] == ["backdoor", "sign-flip", "none"]  # plotly begins at the bottom
    assert trace["z"][0] == [0.88, None]
    assert [bar["name"] for bar in shown["success"]["data"]] == ["without an attack", "backdoor"]
    assert table.failed == 1
    lost = AttackTable(table.scenario, 10, [], [*ROWS[:3], replace(ROWS[3], last=math.nan, diverged=True)])
    assert view(lost)["kept"][1] == ("sign-flip", ["0.100", "diverged"])
    assert view(lost)["map"]["data"][0]["text"][0] == ["0.100", "diverged"]
    assert lost.failed == 0
    page = render_attacks(table)
    assert "Krum<b>" not in page
    assert "WorkerError: died" in page


def test_without_a_backdoor_there_is_no_such_figure() -> None:
    rows = [row for row in ROWS if row.attack != "backdoor"]
    assert view(AttackTable(load_scenario("digits"), 10, [], rows))["success"] is None
    assert all(math.isnan(row.success) for row in rows if row.attack == "sign-flip")
