"""Runs whose clients are trained in stacks and whose updates are summed by the workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import ray.cloudpickle
from flwr.serverapp.strategy import FedAvg

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.common.schema import Population, Shard
from shoal.common.weights import record_to_weights
from shoal.server.app import Hooks, Outcome
from shoal.simulations import datasets
from shoal.simulations.engine.ray_pool import RayExecutor
from shoal.simulations.run import coordinate, run_scenario

# Workers cannot import a test module: its classes travel whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

Weights = list[np.ndarray]


class EveryUpdate(FedAvg):
    """FedAvg as a class of the user's own, which shoal must give every single update."""


def scenario(*overrides: str) -> Scenario:
    """40 of 60 unequal clients a round, in three chunks of up to 16."""
    given = (
        "partition.clients=60",
        "strategy.clients_per_round=40",
        "strategy.evaluate_clients=5",
        "training.rounds=2",
        "training.batch_size=8",
        "training.learning_rate=0.01",
        "model.name=mlp",
        "output.bootstrap=0",
        "resources.backend=serial",
        "resources.execution_mode=stacked",
        "resources.clients_per_chunk=16",
    )
    return load_scenario("linear", [*given, *overrides])


class UnequalPopulation:
    """The clients of another population with 10 to 80 of their rows; may end its process once."""

    def __init__(self, inner: Population, marker: Path | None = None) -> None:
        self._inner, self._marker, self._driver = inner, marker, os.getpid()
        self.schema, self.name = inner.schema, inner.name

    def __len__(self) -> int:
        return len(self._inner)

    def rows(self, client: int) -> int:
        return 10 + client % 8 * 10

    def shard(self, client: int) -> Shard:
        marker = self._marker
        if marker is not None and client == 7 and os.getpid() != self._driver and not marker.exists():
            marker.touch()
            os._exit(1)
        return self._inner.shard(client).take(np.arange(self.rows(client)))


class Notes:
    def __init__(self) -> None:
        self.rounds: list[RoundRow] = []
        self.clients: list[ClientRow] = []
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.rounds.append(row)
        self.clients += clients

    def on_sites(self, rows: Sequence[SiteRow]) -> None: ...


def run(config: Scenario, notes: Notes | None = None, marker: Path | None = None) -> Weights:
    found: list[Outcome] = []
    population = UnequalPopulation(datasets.load_population(config), marker)
    hooks = Hooks([notes] if notes else [], lambda fitted: None)
    coordinate(config, population, hooks, found.append)
    return record_to_weights(found[0].progress.arrays)


def assert_same_bits(a: Weights, b: Weights) -> None:
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_stacks_give_the_same_bits_with_any_workers_and_with_a_worker_lost(
    ray_session: None, tmp_path: Path
) -> None:
    """One worker here; two without a loss in the next test."""
    serial = run(scenario())
    assert_same_bits(run(scenario("resources.backend=ray", "resources.workers=1")), serial)
    marker = tmp_path / "died"
    two = ("resources.backend=ray", "resources.workers=2")
    assert_same_bits(run(scenario(*two), marker=marker), serial)
    assert marker.exists()


def test_the_order_in_which_chunks_are_done_does_not_change_the_bits(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are given the three chunks of a round in a random order instead of the longest first.

    Six rounds in one run: that two of all orders of 3 chunks differ is then certain but for 6 in 6^6.
    """
    rounds = "training.rounds=6"
    serial, rng, orders = run(scenario(rounds)), np.random.default_rng(1), []

    def forecast(self: RayExecutor, piece: object) -> float:
        orders.append(rng.random())
        return orders[-1]

    monkeypatch.setattr(RayExecutor, "_forecast", forecast)
    assert_same_bits(run(scenario(rounds, "resources.backend=ray", "resources.workers=2")), serial)
    assert len(orders) >= 6 * 3


def test_stacked_equals_one_by_one_and_summed_equals_single_updates() -> None:
    stacked = run(scenario())
    own = f"strategy.name={__name__}:EveryUpdate"
    for other in (
        ("resources.execution_mode=sequential",),
        (own,),
        (own, "resources.execution_mode=sequential"),
    ):
        for a, b in zip(stacked, run(scenario(*other)), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_every_client_is_reported_also_where_their_mean_was_sent() -> None:
    summed, single = Notes(), Notes()
    run(scenario(), summed)
    run(scenario(f"strategy.name={__name__}:EveryUpdate"), single)
    assert [(r.round, r.phase, r.client, r.examples, r.bytes_up) for r in summed.clients] == [
        (r.round, r.phase, r.client, r.examples, r.bytes_up) for r in single.clients
    ]
    for one, other in zip(summed.clients, single.clients, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4, nan_ok=True)
    for a, b in zip(summed.rounds[1:], single.rounds[1:], strict=True):
        assert (
            (a.cohort, a.succeeded, a.examples) == (b.cohort, b.succeeded, b.examples) == (40, 40, b.examples)
        )
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert a.metrics == pytest.approx(b.metrics, rel=1e-4, nan_ok=True)


def distance(a: Weights, b: Weights) -> float:
    return float(np.sqrt(sum(((x.astype(np.float64) - y) ** 2).sum() for x, y in zip(a, b, strict=True))))


def test_clipped_clients_move_the_model_by_no_more_than_the_norm() -> None:
    """A weighted mean of updates of norm ≤ 0.01 has norm ≤ 0.01, in each of two rounds."""
    notes = Notes()
    free, held = run(scenario()), run(scenario("update.clip_norm=0.01"), notes)
    start = run(scenario("update.clip_norm=1e-30"))
    assert distance(free, start) > 0.1
    assert 0.005 < distance(held, start) <= 2 * 0.01 * (1 + 1e-4)
    # each path clips and adds the same noise, and so does a worker that sums
    given = ("update.clip_norm=0.01", "update.noise_stddev=0.001")
    stacked = run(scenario(*given))
    for other in ("resources.execution_mode=sequential", f"strategy.name={__name__}:EveryUpdate"):
        for a, b in zip(stacked, run(scenario(*given, other)), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-6)


def test_a_compressed_update_counts_as_it_travels() -> None:
    """2,241 weights of 4 bytes in full, of 1 in 8 bits, and one more array: a step for each of their 6."""
    full, small = Notes(), Notes()
    run(scenario(), full)
    run(scenario("update.compress=int8"), small)
    saved = [
        a.bytes_up - b.bytes_up
        for a, b in zip(full.clients, small.clients, strict=True)
        if a.phase == "train"
    ]
    # with an array go the 128 bytes of its header and 1 of its name
    assert set(saved) == {4 * 2241 - (2241 + 6 * 4 + 129)}


def test_graphs_are_traced_once_a_phase_whatever_the_sizes_of_clients() -> None:
    notes = Notes()
    run(scenario(), notes)
    run(scenario("resources.execution_mode=sequential"), notes)
    trained = [row.metrics["traces"] for row in notes.clients if row.phase == "train"]
    # the training of each mode (autotune takes both); of evaluation, the forward pass with the loss for
    # one client, and without it and the losses for several
    assert max(trained) <= 5


def test_the_mode_that_autotune_chose_is_in_the_run_s_config(tmp_path: Path) -> None:
    config = scenario("resources.execution_mode=auto", f"output.directory={tmp_path}", "training.rounds=1")
    folder = run_scenario(config)
    resolved = load_scenario(folder / "config.toml")
    assert (
        resolved.resources.execution_mode == "stacked"
    )  # 40 clients of a tiny model: an order of magnitude faster
    assert "execution mode: stacked" in (folder / "log.txt").read_text()


def test_a_small_cohort_trains_one_by_one_without_autotune() -> None:
    notes = Notes()
    run(scenario("resources.execution_mode=auto", "strategy.clients_per_round=4", "training.rounds=1"), notes)
    assert not [text for text in notes.texts if text.startswith("execution mode")]


def test_a_stack_that_is_not_supported_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ConfigError, match=r'resources\.execution_mode: "stacked" is not supported here: RMSprop'
    ):
        run(scenario("training.optimizer=rmsprop"))
