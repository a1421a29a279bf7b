"""The audit log of a simulation: every message of the run, with the hash of what it carried."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import datasets, load_scenario
from simulations.results import RunFolder
from simulations.results.audit_check import read_chain
from simulations.results.audit_log import AUDIT_LOG
from simulations.run import run_scenario

ROUNDS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs")
    settings = ["resources.backend=serial", f"training.rounds={ROUNDS}", "output.compare=true"]
    settings += ["output.audit=true", f"output.directory={folder}", "output.bootstrap=0"]
    return RunFolder(run_scenario(load_scenario("linear", settings)))


def test_every_message_of_a_run_is_in_its_log(run: RunFolder) -> None:
    chain = read_chain(run.path / AUDIT_LOG).require_whole()
    assert chain.ended
    clients = len(datasets.load_population(run.scenario()))
    sent = [e for e in chain.messages() if e["direction"] == "sent"]
    counts = {kind: sum(e["kind"] == kind for e in sent) for kind in {e["kind"] for e in sent}}
    # Each round trains and evaluates all; the untrained model is evaluated too. The test asks all about the
    # federated and the pooled model.
    assert counts == {
        "query.statistics": clients,
        "train": ROUNDS * clients,
        "evaluate": (ROUNDS + 1) * clients,
        "train.local": clients,
        "train.pooled": 1,
        "evaluate.test": 2 * clients,
    }
    # A reply may stand for several clients; with those, each request has been answered.
    answered = [e for e in chain.messages() if e["direction"] == "received"]
    assert sum(1 + len(e.get("others", ())) for e in answered) == len(sent)
    assert {e["round"] for e in sent if e["kind"] == "train"} == {1, 2}
    assert {e["peer"] for e in sent if e["kind"] == "train.pooled"} == {"(pooled)"}


def test_what_all_clients_get_has_one_hash_and_the_next_round_another(run: RunFolder) -> None:
    entries = read_chain(run.path / AUDIT_LOG).messages()
    sent = [e for e in entries if (e["kind"], e["direction"]) == ("train", "sent")]
    of_round = {number: {e["sha256"] for e in sent if e["round"] == number} for number in (1, 2)}
    assert [len(hashes) for hashes in of_round.values()] == [1, 1]
    assert of_round[1] != of_round[2]


def test_without_the_key_there_is_no_log(tmp_path: Path) -> None:
    settings = ["resources.backend=serial", "training.rounds=1", "output.bootstrap=0"]
    path = run_scenario(load_scenario("linear", [*settings, f"output.directory={tmp_path}"]))
    assert not (path / AUDIT_LOG).exists()
