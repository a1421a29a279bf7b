"""The privacy ledger: charged before anything leaves, durable, and never forgetful."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from shoal.common.errors import BudgetError, RunError
from shoal.common.events import ClientRow
from shoal.common.messages.names import EPSILON, EPSILON_NEXT
from shoal.common.privacy.accounting import Charge, epsilon
from shoal.common.privacy.plan import ClientPrivacyPlan
from shoal.server.privacy.ledger import ClientLedger, NoLedger, RecordLedger

DELTA = 1e-5


def plan(budget: float = math.inf, noise: float = 5.0) -> ClientPrivacyPlan:
    return ClientPrivacyPlan(noise, "everyone", 1.0, 0, (), DELTA, "rdp", budget)


def spent(rounds: int) -> float:
    return epsilon((Charge(5.0, rounds),), DELTA, "rdp")


def ledger(path: Path | None, *, repeatable: bool = True, budget: float = math.inf) -> ClientLedger:
    return ClientLedger(plan(budget), path=path, repeatable=repeatable)


def test_rounds_add_up() -> None:
    found = ledger(None)
    assert found.epsilon == 0
    for number in (1, 2, 3):
        found.charge(number, [0, 1])
        assert found.epsilon == spent(number)


def test_a_ledger_goes_on_after_a_crash(tmp_path: Path) -> None:
    first = ledger(tmp_path / "privacy.jsonl")
    for number in (1, 2):
        first.charge(number, [0])
    assert ledger(tmp_path / "privacy.jsonl").epsilon == spent(2)


@pytest.mark.parametrize(("repeatable", "rounds"), [(True, 2), (False, 3)])
def test_a_round_done_again_costs_again_only_if_its_noise_is_new(
    tmp_path: Path, repeatable: bool, rounds: int
) -> None:
    """Killed in round 2, before its checkpoint: it is round 2 again."""
    path = tmp_path / "privacy.jsonl"
    for number in (1, 2):
        ledger(path, repeatable=repeatable).charge(number, [0])
    again = ledger(path, repeatable=repeatable)
    again.charge(2, [0])
    assert again.epsilon == spent(rounds)


def test_a_round_is_on_disk_when_it_is_charged(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    ledger(path).charge(1, [4, 7])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"round": 1, "clients": [4, 7]}]


def test_clients_with_noise_of_their_own_are_charged_for_their_own_rounds(tmp_path: Path) -> None:
    """Clients 0, 1 in round 1, then 1, 2: client 1 took part twice, which is the most."""
    path = tmp_path / "privacy.jsonl"
    found = ledger(path)
    found.charge(1, [0, 1])
    found.charge(2, [1, 2])
    assert found.epsilon == spent(2)
    found.charge(3, [0])
    assert found.epsilon == spent(2)
    assert ledger(path).epsilon == spent(2)


def test_the_budget_stops_before_it_is_passed() -> None:
    found = ledger(None, budget=spent(3))
    for number in (1, 2, 3):
        assert found.affords()
        found.charge(number, [0])
    assert not found.affords()


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """`charge` had not returned, so nothing of that round has left."""
    path = tmp_path / "privacy.jsonl"
    ledger(path).charge(1, [0])
    with path.open("a") as stream:
        stream.write('{"round": 2, "cli')
    found = ledger(path)
    assert found.epsilon == spent(1)
    found.charge(2, [0])
    assert ledger(path).epsilon == spent(2)


def test_a_damaged_ledger_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    path.write_text('{"round": 1}\n{"clients": []}\n{"round": 3}\n')
    with pytest.raises(RunError, match=r"line 2 of .*privacy\.jsonl is damaged"):
        ledger(path)


def told(epsilon: float, after: float) -> ClientRow:
    return ClientRow(1, 0, "a", "train", 10, 0.1, 1, 1, {EPSILON: epsilon, EPSILON_NEXT: after})


def test_clients_accounts_of_their_rows_are_heard() -> None:
    found = RecordLedger(budget=3.0)
    found.hear([told(1.0, 1.4), told(2.0, 2.8)])
    assert found.epsilon == 2.0
    assert found.affords()
    found.hear([told(2.8, 3.1)])
    assert not found.affords()


def test_without_a_guarantee_nothing_is_reported_and_all_is_allowed() -> None:
    assert math.isnan(NoLedger().epsilon)
    assert NoLedger().affords()


def test_a_client_refuses_a_round_beyond_its_budget() -> None:
    own = plan(budget=spent(3))
    own.require(3)
    with pytest.raises(BudgetError, match="after round 4 this client would have spent"):
        own.require(4)
