"""SCAFFOLD: the fixed point is the optimum of all rows, in every execution mode and over every backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.server.app import Hooks, Outcome
from shoal.server.checkpoint import Checkpoints
from shoal.simulations import datasets
from shoal.simulations.results import RunFolder
from shoal.simulations.run import coordinate, resume_run, run_scenario
from tests.helpers.stateful import Crash, Lines, bits, distance_to_optimum, weights

# -- the closed form ----------------------------------------------------------------------------


def test_the_fixed_point_is_the_pooled_optimum_where_that_of_fedavg_is_not() -> None:
    """On quadratics with minima m_i and Hessians H_i, FedAvg's K steps of rate η from x lead client i to
    m_i + (1 - η H_i)^K (x - m_i). Its fixed point weighs m_i by 1 - (1 - η H_i)^K instead of H_i: another one
    as soon as K > 1 and the H_i differ. SCAFFOLD's is where Σ n_i ∇f_i = 0: the pooled optimum, also where
    the n_i differ.
    """
    unequal = Lines((20, 40, 60, 30))
    assert distance_to_optimum("SCAFFOLD", unequal, 60) < 1e-4
    assert distance_to_optimum("FedAvg", unequal, 20) > 1e-2


def test_half_of_the_clients_a_round_lead_there_too() -> None:
    """Of clients of one size, where |S|/N times the mean change keeps c the mean of all c_i."""
    assert distance_to_optimum("SCAFFOLD", Lines((40,) * 4), 200, "strategy.clients_per_round=2") < 1e-3


# -- execution modes and backends ---------------------------------------------------------------


class Notes:
    def __init__(self) -> None:
        self.clients: list[ClientRow] = []

    def on_message(self, text: str) -> None: ...

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.clients += clients

    def on_sites(self, rows: Sequence[SiteRow]) -> None: ...


def mlp(*settings: str) -> Scenario:
    given = (
        "strategy.name=SCAFFOLD",
        "strategy.clients_per_round=6",
        "strategy.evaluate_clients=2",
        "partition.clients=8",
        "training.rounds=4",
        "training.local_steps=3",
        "training.batch_size=8",
        "training.learning_rate=0.003",
        "model.name=mlp",
        "output.bootstrap=0",
        "resources.backend=serial",
        "resources.execution_mode=sequential",
        "resources.clients_per_chunk=3",
    )
    return load_scenario("linear", [*given, *settings])


def finished(directory: Path, *settings: str) -> Path:
    return run_scenario(mlp(f"output.directory={directory}", *settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("whole"))


def test_stacks_give_the_same_as_one_by_one(whole: Path, tmp_path: Path) -> None:
    stacked = finished(tmp_path / "stacked", "resources.execution_mode=stacked")
    start = weights(finished(tmp_path / "start", "training.learning_rate=1e-12"))
    for a, b, before in zip(weights(stacked), weights(whole), start, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.abs(b - before).max() > 1e-3  # something was learnt


@pytest.mark.parametrize("mode", ["sequential", "stacked"])
def test_workers_give_the_same_bits(mode: str, tmp_path: Path, ray_session: None) -> None:
    setting = f"resources.execution_mode={mode}"
    serial = finished(tmp_path / "serial", setting)
    ray = finished(tmp_path / "ray", setting, "resources.backend=ray", "resources.workers=2")
    assert bits(ray) == bits(serial)


def test_clients_over_grpc_that_keep_their_own_states_give_the_same_bits(
    whole: Path, tmp_path: Path, ray_session: None
) -> None:
    over = ("resources.backend=ray", "resources.workers=2", "resources.transport=grpc")
    assert bits(finished(tmp_path, *over)) == bits(whole)


def crashed(directory: Path, monkeypatch: pytest.MonkeyPatch, at: int, *settings: str) -> Path:
    """Return the folder of a run that ended when it was to save a round."""
    save = Checkpoints.save

    def fail(self: Checkpoints, number: int, state: Any) -> None:
        if number >= at:
            raise Crash
        save(self, number, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fail)
        with pytest.raises(Crash):
            finished(directory, *settings)
    (folder,) = directory.iterdir()
    return folder


@pytest.mark.parametrize(
    ("at", "settings"),
    [(3, ()), (4, ("output.checkpoint_every=2",))],
    ids=["every round", "every other round"],
)
def test_a_run_that_was_killed_goes_on_with_the_states_of_its_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, settings: tuple[str, ...]
) -> None:
    """States of the rounds after it were written already; they are done again from those before."""
    folder = crashed(tmp_path, monkeypatch, at, *settings)
    run = RunFolder(folder)
    try:
        resume_run(run, run.scenario())
    finally:
        run.close()
    assert bits(folder) == bits(whole)


def test_a_client_sends_as_many_bytes_more_as_its_control_variate_has() -> None:
    """Also where a worker sends their mean: 2,241 weights of 4 bytes, 6 headers of 128 and 6 names of 1."""
    found = []
    for strategy in ("SCAFFOLD", "FedAvg"):
        notes, outcomes = Notes(), list[Outcome]()
        config = mlp(f"strategy.name={strategy}", "training.rounds=1")
        hooks = Hooks([notes], lambda fitted: None)
        coordinate(config, datasets.load_population(config), hooks, outcomes.append)
        found.append([row.bytes_up for row in notes.clients if row.phase == "train"])
    assert {a - b for a, b in zip(*found, strict=True)} == {4 * 2241 + 6 * 129}
