"""Whole runs: the same bits everywhere, the closed form, what is left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shoal.clients.shard import split
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import NonFiniteError, TooFewRepliesError
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.common.schema import Population, Shard
from shoal.common.weights import record_to_weights
from shoal.server.app import Hooks, Outcome
from shoal.simulations import datasets
from shoal.simulations.predict import predict
from shoal.simulations.results import RunFolder
from shoal.simulations.run import coordinate, run_scenario


class Notes:
    """An observer that keeps what it is told."""

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


def scenario(name: str, *overrides: str) -> Scenario:
    return load_scenario(name, ["resources.backend=serial", "output.compare=false", *overrides])


def outcome(config: Scenario, notes: Notes | None = None) -> Outcome:
    found: list[Outcome] = []
    hooks = Hooks([notes] if notes else [], lambda fitted: None)
    coordinate(config, datasets.load_population(config), hooks, found.append)
    return found[0]


def weights(config: Scenario) -> list[np.ndarray]:
    return record_to_weights(outcome(config).progress.arrays)


def assert_same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert len(a) == len(b)
    assert all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


SHORT = ("training.rounds=2", "training.local_epochs=1", "training.local_steps=5", "output.bootstrap=20")


def test_serial_and_ray_give_the_same_bits_with_one_worker_and_with_two(ray_session: None) -> None:
    serial = weights(scenario("medical-thyroid", *SHORT))
    for workers in (1, 2):
        config = scenario("medical-thyroid", *SHORT, "resources.backend=ray", f"resources.workers={workers}")
        assert_same_bits(weights(config), serial)


def test_clients_over_grpc_give_the_same_bits(ray_session: None) -> None:
    given = (*SHORT, "output.compare=true")
    direct, wire = Notes(), Notes()
    over = ("resources.backend=ray", "resources.transport=grpc", "resources.workers=2")
    serial = outcome(scenario("medical-thyroid", *given), direct)
    grpc = outcome(scenario("medical-thyroid", *given, *over), wire)
    assert_same_bits(*(record_to_weights(found.progress.arrays) for found in (serial, grpc)))
    assert [row.metrics for row in wire.rounds] == [row.metrics for row in direct.rounds]
    assert wire.sites == direct.sites
    assert [c.error for c in wire.clients] == [""] * len(wire.clients)


def test_seventy_clients_over_grpc_share_two_processes(ray_session: None) -> None:
    # Sent one by one they are summed in the same groups, of three, as workers sum them in one process.
    given = ("partition.scheme=iid", "partition.clients=70", "partition.min_rows=5", "training.rounds=1")
    notes = Notes()
    over = ("resources.backend=ray", "resources.transport=grpc", "resources.workers=2")
    wire = weights(scenario("digits", *given, *over))
    direct = outcome(scenario("digits", *given, "resources.execution_mode=sequential"), notes)
    assert_same_bits(wire, record_to_weights(direct.progress.arrays))
    assert notes.rounds[-1].succeeded == 70


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    first, again = (weights(scenario("digits", *SHORT)) for _ in range(2))
    assert_same_bits(first, again)
    other = weights(scenario("digits", *SHORT, "seed=2"))
    assert not np.array_equal(first[0], other[0])


class UnequalPopulation:
    """The clients of another population with 20, 30, 40, … of their rows."""

    def __init__(self, inner: Population) -> None:
        self._inner = inner
        self.schema, self.name = inner.schema, inner.name

    def __len__(self) -> int:
        return len(self._inner)

    def rows(self, client: int) -> int:
        return min(20 + 10 * client, self._inner.rows(client))

    def shard(self, client: int) -> Shard:
        return self._inner.shard(client).take(np.arange(self.rows(client)))


def test_one_full_batch_round_of_fedavg_is_one_step_of_gradient_descent() -> None:
    """Client k holds n_k of n rows and F_k is its mean loss. From the same w, one local step gives
    w_k = w - η ∇F_k(w); FedAvg gives Σ (n_k / n) w_k = w - η Σ (n_k / n) ∇F_k(w) = w - η ∇F(w), since
    F = Σ (n_k / n) F_k is the mean loss over all rows.

    For one linear unit with squared error, from w = 0 and b = 0: ∂F/∂w = -2 mean(x y), ∂F/∂b = -2 mean(y).
    Clients hold 20 to 100 rows, so that an unweighted mean would be caught.
    """
    config = scenario("linear", "training.rounds=1", "training.batch_size=1000")
    population = UnequalPopulation(datasets.load_population(config))
    found: list[Outcome] = []
    coordinate(config, population, Hooks([], lambda fitted: None), found.append)
    result = found[0]
    spec = result.fitted.spec.numeric[0]
    parts = [split(population.shard(c), config.data, config.seed, c)["train"] for c in range(len(population))]
    x = np.concatenate([(p.columns["x"] - spec.shift) / spec.scale for p in parts])
    y = np.concatenate([p.labels for p in parts]).astype(np.float64)
    rate = config.training.learning_rate
    kernel, bias = record_to_weights(result.progress.arrays)
    np.testing.assert_allclose(kernel.ravel(), [2 * rate * (x * y).mean()], rtol=2e-6)
    np.testing.assert_allclose(bias, [2 * rate * y.mean()], rtol=2e-6)


def test_linear_ends_at_the_closed_form_solution(tmp_path: Path) -> None:
    run = run_scenario(scenario("linear", f"output.directory={tmp_path}", "output.bootstrap=0"))
    found = json.loads((run / "summary.json").read_text())["closed_form"]
    assert set(found) == {"slope of x", "intercept"}
    for pair in found.values():
        assert pair["learnt"] == pytest.approx(pair["exact"], abs=1e-2)
    # and the exact one is near the line that the data was drawn from, y = 2 + 3x
    assert found["slope of x"]["exact"] == pytest.approx(3, abs=0.1)
    assert found["intercept"]["exact"] == pytest.approx(2, abs=0.3)


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    notes = Notes()
    config = scenario("medical-thyroid", *SHORT, f"output.directory={tmp_path}", "output.compare=true")
    path = run_scenario(config, [notes])
    names = {file.name for file in path.iterdir()}
    assert names >= {
        "config.toml",
        "environment.json",
        "events.jsonl",
        "rounds.parquet",
        "clients.parquet",
        "sites.parquet",
        "summary.json",
        "overview.json",
        "schema.json",
        "preprocessing.json",
        "model.keras",
        "model-last.keras",
        "report.html",
        "run.log",
    }
    run = RunFolder.open(path)
    assert run.status() == "finished"
    assert run.scenario() == config
    assert [row.round for row in notes.rounds] == [0, 1, 2]
    for row in notes.rounds:
        assert sum(row.phases.values()) == pytest.approx(row.seconds)
        assert {"auc", "f1", "accuracy", "loss"} == set(row.metrics)
    assert {site.name for site in notes.sites} == {"other", "SVI", "SVHC", "STMW", "SVHD"}
    assert all(set(site.tests) == {"local", "federated", "centralised"} for site in notes.sites)
    # 8,193 float32 weights go down to and come up from each of five clients
    trained = [row for row in notes.clients if row.phase == "train" and row.round == 1]
    assert all(row.bytes_up > 4 * 8193 and row.bytes_down > 4 * 8193 for row in trained)


@pytest.mark.parametrize("backend", ["serial", "ray"])
def test_phases_of_a_round_add_up_to_its_wall_time(backend: str, ray_session: None, tmp_path: Path) -> None:
    """Against another clock: the time between the ends of two rounds."""
    ends: list[float] = []

    class Clock(Notes):
        def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
            super().on_round(row, clients)
            ends.append(time.perf_counter())

    notes = Clock()
    given = (*SHORT, f"output.directory={tmp_path}", f"resources.backend={backend}", "resources.workers=2")
    folder = run_scenario(scenario("medical-thyroid", *given), [notes], trace=True)
    told = sum(sum(row.phases.values()) for row in notes.rounds[1:])
    # 20 ms: the clocks are read one after the other, and a busy machine may stop in between
    assert told == pytest.approx(ends[-1] - ends[0], rel=0.02, abs=0.02)
    for row in notes.rounds[1:]:
        assert row.phases["train"] > 0
        assert row.phases["evaluate"] > 0
        assert min(row.phases.values()) >= -0.01 * row.seconds
        assert ("idle" in row.phases) == (backend == "ray")
    events = json.loads((folder / "trace.json").read_text())
    tracks = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    workers = {"worker 1", "worker 2"} if backend == "ray" else set()
    assert tracks == {"server"} | workers
    # the spans of a worker lie within those in which the server waits for it
    waits = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "wait"]
    for event in (e for e in events if e["ph"] == "X" and e["tid"]):
        assert any(a <= event["ts"] and event["ts"] + event["dur"] <= b for a, b in waits)


def test_the_exported_model_takes_raw_rows(tmp_path: Path) -> None:
    config = scenario("medical-thyroid", *SHORT, f"output.directory={tmp_path}")
    path = run_scenario(config)
    rows = tmp_path / "rows.csv"
    # a row with most values missing and a category that nobody has seen
    rows.write_text("age,sex,on_thyroxine,TSH,T3,TT4\n41,F,f,1.3,2.5,125\n,X,t,,,\n", encoding="utf-8")
    with pytest.raises(Exception, match="query_on_thyroxine"):
        predict(path, rows, None)
    from shoal.simulations.datasets.thyroid import read

    whole = read().slice(0, 50)
    from pyarrow import csv

    csv.write_csv(whole, rows)
    table = predict(path, rows, None)
    assert table.num_rows == 50
    loaded = keras.models.load_model(path / "model.keras")
    assert {tensor.name for tensor in loaded.inputs} <= set(whole.column_names)


def test_early_stopping_keeps_the_best_round() -> None:
    notes = Notes()
    # The rate is so high that the loss soon grows: patience ends the run, the best round is kept.
    config = scenario(
        "linear", "training.rounds=50", "training.learning_rate=1.2", "training.early_stopping.patience=3"
    )
    progress = outcome(config, notes).progress
    assert progress.stopped_early
    losses = [row.metrics["loss"] for row in notes.rounds]
    assert progress.best_round == int(np.argmin(losses))
    assert progress.round == progress.best_round + 3
    assert progress.score == min(losses)


def test_divergence_is_told_in_words_and_results_so_far_are_kept(tmp_path: Path) -> None:
    config = scenario(
        "linear", "training.learning_rate=1e8", f"output.directory={tmp_path}", "training.rounds=9"
    )
    with pytest.raises((NonFiniteError, TooFewRepliesError), match="learning"):
        run_scenario(config)
    run = RunFolder.open(next(tmp_path.iterdir()))
    assert run.status() == "failed"
    assert run.rounds().num_rows >= 1
    assert (run.path / "report.html").exists()
    assert not (run.path / "audit.jsonl").exists()  # only with output.audit


@pytest.mark.parametrize(
    "strategy",
    ["FedAvgM", "FedProx", "FedAdam", "FedYogi", "FedAdagrad", "FedMedian", "FedTrimmedAvg", "Krum",
     "MultiKrum", "Bulyan", "QFedAvg"],
)  # fmt: skip
def test_every_strategy_runs_two_rounds_in_the_loop(strategy: str) -> None:
    extra = {"FedProx": ["strategy.args.proximal_mu=0.1"], "FedAvgM": ["strategy.args.server_momentum=0.5"]}
    config = scenario(
        "linear",
        f"strategy.name={strategy}",
        *extra.get(strategy, []),
        "training.rounds=2",
        "output.bootstrap=0",
    )
    result = outcome(config)
    before, after = (
        np.concatenate([w.ravel() for w in record_to_weights(r)])
        for r in (result.progress.best_arrays, result.progress.arrays)
    )
    assert np.isfinite(after).all()
    assert after.dtype == np.float32
    assert np.abs(after).sum() > 0  # it moved from zero
    assert before.shape == after.shape


def test_fedprox_pulls_towards_the_global_weights() -> None:
    """Many local steps drift towards the client's own optimum; the proximal term holds them back."""
    base = ("training.rounds=1", "training.local_steps=50", "output.bootstrap=0", "strategy.name=FedProx")
    free = weights(scenario("linear", *base, "strategy.args.proximal_mu=0.0"))
    held = weights(scenario("linear", *base, "strategy.args.proximal_mu=10.0"))
    assert np.abs(held[1]).item() < 0.5 * np.abs(free[1]).item()


def test_a_smaller_cohort_is_drawn_by_seed() -> None:
    notes: list[Any] = []
    for _ in range(2):
        note = Notes()
        outcome(
            scenario("linear", "strategy.clients_per_round=3", "training.rounds=4", "output.bootstrap=0"),
            note,
        )
        notes.append(
            [[c.client for c in note.clients if c.round == r and c.phase == "train"] for r in range(1, 5)]
        )
    assert notes[0] == notes[1]
    assert all(len(cohort) == 3 for cohort in notes[0])
    assert len({tuple(cohort) for cohort in notes[0]}) > 1
