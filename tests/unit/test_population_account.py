"""The account of a population: over runs, restarts and changed data, and reset by the site alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shoal.clients.kernel.account import PopulationAccount, Use, account_of, spent_in
from shoal.common.errors import BudgetError
from shoal.common.privacy.accounting import Charge, epsilon
from shoal.common.privacy.charges import Charges
from shoal.simulations.cli import app

DELTA, NOISE = 1e-5, 5.0


def training(number: int, noise: float = NOISE) -> Use:
    return Use(f"train {number}", "local", Charge(noise, 1), DELTA)


def test_uses_of_all_runs_compose(tmp_path: Path) -> None:
    """Two runs of two rounds with noise 5 and one of noise 3: composed as one sequence of five mechanisms."""
    path = tmp_path / "account.jsonl"
    for run, noise in (("a", 5.0), ("b", 5.0), ("c", 3.0)):
        account = PopulationAccount(Charges(path), run)
        for number in (1, 2) if run != "c" else (1,):
            account.spend(training(number, noise))
        account.spend(Use("evaluate 1"))
    spent = PopulationAccount(Charges(path), "d").spent
    assert spent.epsilon == epsilon((Charge(5.0, 4), Charge(3.0, 1)), DELTA, "rdp")
    assert (spent.runs, spent.rounds, spent.in_clear, spent.member) == (3, 5, 3, "client")
    record = Use("train 1", "record", Charge(1.0, 10, "poisson", 0.1), DELTA)
    account.spend(record)
    assert account.spent.member == "training row"


def test_a_question_that_is_answered_anew_is_charged_once_and_another_one_again(tmp_path: Path) -> None:
    """Killed between charging and answering: the question is the same, and nothing has left."""
    path = tmp_path / "account.jsonl"
    for question, rounds in (("train 1 ab", 1), ("train 1 ab", 1), ("train 1 cd", 2)):
        account = PopulationAccount(Charges(path), "run")
        account.ask(question)
        assert account.rounds_with(training(1)) == rounds
        account.spend(training(1))
        assert account.rounds == rounds
    assert PopulationAccount(Charges(path), "other").rounds == 0


def test_the_lifetime_limit_holds_over_runs_and_nothing_beyond_it_is_charged(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    limit = epsilon((Charge(NOISE, 3),), DELTA, "rdp")
    for number in (1, 2, 3):
        PopulationAccount(Charges(path), f"run-{number}", limit).spend(training(1))
    account = PopulationAccount(Charges(path), "run-4", limit)
    with pytest.raises(BudgetError, match="lifetime epsilon would be"):
        account.spend(training(1))
    account.spend(Use("test"))  # without a guarantee, which the limit does not cover
    assert len(Charges(path).entries) == 4


def test_only_the_site_resets_an_account_and_the_reset_is_logged(tmp_path: Path) -> None:
    data = tmp_path / "north.csv"
    path = account_of(data)
    PopulationAccount(Charges(path), "run").spend(training(1))
    told = CliRunner().invoke(app, ["privacy", "account", str(data)])
    assert told.exit_code == 0, told.output
    assert "runs: 1, rounds of training: 1" in told.output
    assert f"epsilon = {epsilon((Charge(NOISE, 1),), DELTA, 'rdp'):.4g} at delta = 1e-05" in told.output
    assert CliRunner().invoke(app, ["privacy", "reset", str(data), "--reason", "other people"]).exit_code == 0
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry.get("reset") for entry in entries] == [None, "other people"]
    assert spent_in([]).epsilon == PopulationAccount(Charges(path), "run").spent.epsilon == 0
    told = CliRunner().invoke(app, ["privacy", "account", str(data)])
    assert "other people" in told.output
    assert "nothing is spent" in told.output
