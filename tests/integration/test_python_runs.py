"""Runs from Python: results, data and models at hand, engines, callbacks; and the process afterwards."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import shoal
from shoal.common.errors import ConfigError, RunError
from shoal.common.events import ClientRow, RoundRow
from shoal.common.keras_loading import load_keras
from shoal.simulations.results import RunFolder

SERIAL: dict[str, Any] = {"backend": "serial", "progress": False, "output": {"bootstrap": 0}}


class Fails(shoal.Callback):
    """Fails after a round, as a fault in the user's own code would."""

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        if row.round == 1:
            raise ZeroDivisionError("mine")


class Stops(shoal.Callback):
    """Stops after round 1, and counts the clients of each round."""

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> dict[str, float]:
        if row.round == 1:
            self.stop()
        return {"messages": len(clients)}


def outcome(run: shoal.Run) -> dict[str, Any]:
    """What two runs of the same scenario must have in common, to the bit."""
    kept = ["round", "train_loss", *(c for c in run.rounds if c.startswith("metric_"))]
    return {
        "rounds": run.rounds[kept].to_json(double_precision=15),
        "sites": run.sites.to_json(double_precision=15),
        "weights": [w.tobytes() for w in run.model.get_weights()],
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own to stand in: runs land in its runs/."""
    path = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def linear(place: Path) -> shoal.Run:
    return shoal.run("linear", rounds=2, set={"partition.clients": 5}, **SERIAL)


def patients(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    age, smoker = rng.normal(60, 10, rows), rng.choice(["yes", "no"], rows)
    sick = np.where(age + 10 * (smoker == "yes") > 65, "sick", "healthy")
    site = np.repeat(["north", "south"], rows // 2)
    return pd.DataFrame({"site": site, "age": age, "smoker": smoker, "outcome": sick})


def build(spec: Any, classes: int) -> Any:
    import keras

    return keras.Sequential([keras.Input(spec.shape), keras.layers.Dense(1, activation="sigmoid")])


def simulated(**given: Any) -> shoal.Run:
    asked = {"model": build, "data": patients(), "client": "site", "label": "outcome", "rounds": 2, **SERIAL}
    return shoal.simulate(**{**asked, **given})


def test_a_run_has_its_results_as_frames(linear: shoal.Run) -> None:
    assert list(linear.rounds["round"]) == [0, 1, 2]
    assert {"train_loss", "metric_mae", "bytes_up", "seconds"} <= set(linear.rounds)
    assert set(linear.clients["phase"]) == {"train", "evaluate"}
    assert len(linear.sites.query("model == 'federated' and metric == 'mae'")) == 5
    assert linear.status == linear.summary["status"] == "finished"
    assert linear.scenario.partition.clients == 5
    assert f"<Run {linear.name}: status finished, rounds 2 of 2, test loss" in repr(linear)
    html = linear._repr_html_()
    assert "<td style='text-align:left'>2 of 2</td>" in html
    assert "<script" not in html
    assert "://" not in html


def test_the_run_folder_is_that_of_the_command_line(linear: shoal.Run) -> None:
    from shoal.common.config.file import load_scenario
    from shoal.simulations.run import run_scenario

    settings = ["training.rounds=2", "partition.clients=5", "resources.backend=serial", "output.bootstrap=0"]
    path = run_scenario(load_scenario("linear", settings))
    assert {p.name for p in path.iterdir()} == {p.name for p in linear.path.iterdir()}
    assert outcome(shoal.Run(path.name)) == outcome(linear)


def test_a_run_predicts_and_reports(linear: shoal.Run) -> None:
    rows = pd.DataFrame({"x": [0.0, 5.0]}, index=["p", "q"])
    found = linear.predict(rows)
    assert list(found.index) == ["p", "q"]
    assert list(linear.predict(rows["x"].to_numpy()[:, None])["prediction"]) == list(found["prediction"])
    linear.report().unlink()
    assert linear.report().stat().st_size > 1000


def test_two_runs_are_compared(linear: shoal.Run) -> None:
    other = shoal.run(linear.scenario, rounds=1, progress=False)
    table = linear.compare(other)
    assert list(table.loc["rounds"]) == [2, 1, -1]
    assert "federated mae, worst" in table.index
    assert list(linear.differences(other).loc["training.rounds"]) == ["2", "1"]


def test_a_frame_and_a_function(place: Path) -> None:
    run = simulated(name="patients")
    assert run.path.name.startswith("patients-")
    config = (run.path / "config.toml").read_text()
    assert 'source = "python"' in config
    assert 'name = "python:build"' in config
    assert set(run.sites["name"]) == {"north", "south"}
    found = shoal.Run(run.path).predict(patients().drop(columns="outcome"))
    assert set(found.columns) == {"prediction", "probability of healthy", "probability of sick"}


def test_a_compiled_model_starts_from_its_weights_and_is_left_alone(place: Path) -> None:
    load_keras()
    import keras

    # Five inputs: age, and of smoker whether it is unknown, missing, "no" or "yes".
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(1e-9), loss="binary_crossentropy", metrics=["accuracy"])
    before = [w.copy() for w in model.get_weights()]
    run = simulated(model=model, seed=5)
    training = run.scenario.training
    assert (training.optimizer, training.learning_rate, training.metrics) == ("adam", 1e-9, ("accuracy",))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    # A rate of 1e-9 in at most 2 x 3 steps moves no weight by more than 6e-9.
    trained = [w for w in run.model.get_weights() if w.shape in {(5, 1), (1,)}]
    for weight, start in zip(trained, before, strict=True):
        np.testing.assert_allclose(weight, start, atol=1e-7)
    assert simulated(model=model, rounds=1, learning_rate=0.5).scenario.training.learning_rate == 0.5


def test_what_does_not_fit_is_refused_before_a_folder_is_made(place: Path) -> None:
    before = set((place / "runs").iterdir()) if (place / "runs").exists() else set()
    for kind, told, given in [
        (ConfigError, "training.rounds: must be at least 1", {"rounds": 0}),
        (ConfigError, 'unknown strategy "FedAvgg"', {"strategy": "FedAvgg"}),
        (ConfigError, 'unknown column "sites"', {"client": "sites"}),
        (ConfigError, "data are arrays, which have no columns", {"data": (np.zeros((9, 2)), np.zeros(9))}),
    ]:
        with pytest.raises(kind, match=told):
            simulated(**given)
    after = set((place / "runs").iterdir()) if (place / "runs").exists() else set()
    assert after == before


def test_a_stopped_run_goes_on_with_data_and_model_given_again(place: Path) -> None:
    whole = simulated(name="whole", rounds=3)
    with pytest.raises(ZeroDivisionError, match="mine"):
        simulated(name="broken", rounds=3, callbacks=[Fails()])
    (path,) = (place / "runs").glob("broken-*")
    assert shoal.Run(path).status == "failed"
    with pytest.raises(ConfigError, match=r"were given to shoal\.simulate"):
        shoal.resume(path, progress=False)
    resumed = shoal.resume(path, model=build, data=patients(), progress=False)
    assert resumed.status == "finished"
    assert outcome(resumed) == outcome(whole)


def test_a_callback_stops_a_run_and_adds_metrics(place: Path) -> None:
    run = shoal.run("linear", rounds=9, callbacks=[Stops()], **SERIAL)
    assert run.status == "stopped early"
    assert list(run.rounds["round"]) == [0, 1]
    # 10 clients: asked to evaluate in round 0; to train and to evaluate in round 1.
    assert list(run.rounds["metric_messages"]) == [10, 20]
    assert len(run.sites) > 0
    assert run.report().exists()
    with pytest.raises(RunError, match="stopped early: there is nothing left to do"):
        shoal.resume(run, progress=False)


def test_an_engine_gives_the_same_bits_and_survives_a_failure(place: Path) -> None:
    scenario = shoal.Scenario.load("linear", rounds=2, strategy="FedAdam", partition={"clients": 4})
    alone = [outcome(shoal.run(scenario, seed=seed, **SERIAL)) for seed in (1, 2)]
    with shoal.Engine(backend="serial") as engine:
        given = {"engine": engine, "progress": False, "output": {"bootstrap": 0}}
        first = shoal.run(scenario, seed=1, **given)
        assert first.scenario.resources.backend == "serial"
        with pytest.raises(ZeroDivisionError):
            shoal.run(scenario, callbacks=[Fails()], **given)
        second = shoal.run(scenario, seed=2, **given)
        assert [outcome(first), outcome(second)] == alone
        third = shoal.run(scenario, seed=1, training={"loss": "mae"}, **given)  # another model: compiled anew
        assert outcome(third) != alone[0]
        assert "idle, keeps serial workers" in repr(engine)
    with pytest.raises(RunError, match="the engine is closed"):
        shoal.run(scenario, **given)


def test_an_engine_keeps_ray_workers(place: Path, ray_session: None) -> None:
    alone = outcome(shoal.run("linear", rounds=1, partition={"clients": 4}, **SERIAL))
    with shoal.Engine(backend="ray", workers=2) as engine:
        given = {"rounds": 1, "engine": engine, "progress": False, "output": {"bootstrap": 0}}
        started = [outcome(shoal.run("linear", partition={"clients": 4}, **given)) for _ in range(2)]
        with pytest.raises(ZeroDivisionError):
            shoal.run("linear", partition={"clients": 4}, callbacks=[Fails()], **given)
        pool = engine._executor
        again = shoal.run("linear", partition={"clients": 4}, **given)
        assert engine._executor is pool
        assert [*started, outcome(again)] == [alone] * 3
        # A build, which takes about a second, is part of the first run only.
        assert "seconds_build" not in again.rounds or again.rounds["seconds_build"].max() < 0.2
        shoal.run("linear", partition={"clients": 2}, resources={"threads_per_worker": 2}, **given)
        assert engine._executor is not pool  # other workers were asked for


def test_a_sweep_goes_on_where_it_was(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells: dict[str, dict[str, Any]] = {"sgd": {}, "adam": {"training.optimizer": "adam"}}
    given = {"seeds": [1, 2], "rounds": 1, "backend": "serial", "partition": {"clients": 3}}
    with pytest.raises(ConfigError) as caught:
        shoal.sweep("linear", {"good": {}, "bad": {"rounds": 0}, "worse": {"strategy": "No"}})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["bad", "worse"]
    first = shoal.sweep("linear", cells, **given)
    assert set(first.runs) == {("sgd", 1), ("adam", 1), ("sgd", 2), ("adam", 2)}
    again = shoal.sweep("linear", cells, **given)
    assert [run.path for run in again.runs.values()] == [run.path for run in first.runs.values()]
    assert capsys.readouterr().out.count("done") == 8
    table = again.table("mae")
    means = [shoal_mean(first.runs["sgd", seed]) for seed in (1, 2)]
    assert table.loc["sgd", "mean"] == pytest.approx(np.mean(means))
    assert table.loc["sgd", "std"] == pytest.approx(np.std(means, ddof=1))
    assert list(table["runs"]) == [2, 2]
    assert "<table" in again._repr_html_()


def shoal_mean(run: shoal.Run) -> float:
    return float(run.sites.query("model == 'federated' and metric == 'mae'")["value"].mean())


def test_a_run_that_fails_does_not_end_a_sweep(place: Path) -> None:
    cells = {
        "good": {},
        "bad": {"data.args": {"rows": 10}, "preprocessing.min_count": 200},
        "also": {"rounds": 2},
    }
    found = shoal.sweep(
        "linear", cells, seeds=[5], rounds=1, backend="serial", folder="grid", callbacks=[FailsOnBad()],
        progress=False,
    )  # fmt: skip
    assert set(found.runs) == {("good", 5), ("also", 5)}
    assert found.failed == {("bad", 5): "ZeroDivisionError: mine"}
    (path,) = Path("grid").glob("linear-bad-*")
    assert shoal.Run(path).status == "failed"
    assert repr(found) == "<Sweep: 2 runs, 1 failed>"


class FailsOnBad(shoal.Callback):
    def on_start(self, scenario: Any, folder: Path) -> None:
        if "-bad" in scenario.name:
            raise ZeroDivisionError("mine")


def surroundings() -> tuple[Any, ...]:
    root = logging.getLogger()
    flower = logging.getLogger("flwr")
    return (
        dict(os.environ),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        (root.level, root.handlers[:], flower.handlers[:], flower.propagate),
        (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_left_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    gc.set_threshold(701, 11, 12)
    before = surroundings()
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                shoal.run("linear", rounds=1, callbacks=[Fails()], **SERIAL)
        else:
            shoal.run("linear", rounds=1, **SERIAL)
        assert surroundings() == before
    finally:
        gc.set_threshold(700, 10, 10)


def test_what_the_user_froze_stays_frozen(place: Path) -> None:
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        shoal.run("linear", rounds=1, **SERIAL)
        # A few of them have died since; had they been unfrozen, there would be none.
        assert 0.9 * before < gc.get_freeze_count() <= before
    finally:
        gc.unfreeze()


def test_a_folder_without_a_run_is_refused(linear: shoal.Run) -> None:
    with pytest.raises(RunError, match='unknown run "linearr"'):
        shoal.Run("linearr")
    assert RunFolder(linear.path).status() == "finished"
