"""A run that was killed at any instant goes on to the same bits as one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forking import start_shoal
from rounds import untimed

from shoal.common.config.file import load_scenario
from shoal.common.errors import CheckpointError, RunError
from shoal.common.journal import plain
from shoal.server.checkpoint import Checkpoints
from shoal.simulations import datasets
from shoal.simulations.results import RunFolder
from shoal.simulations.run import resume_run, run_scenario

ROUNDS = 12
GIVEN = (
    f"training.rounds={ROUNDS}",
    "training.schedule=cosine",
    "strategy.name=FedAdam",  # has moments, and a best round that is not the last one
    "strategy.clients_per_round=4",
    "output.bootstrap=10",
    "resources.backend=serial",
)


def settings(directory: Path) -> list[str]:
    return [*GIVEN, f"output.directory={json.dumps(str(directory))}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run leaves that was never interrupted."""
    given = settings(tmp_path_factory.mktemp("whole"))
    return result(run_scenario(load_scenario("linear", given)))


def result(folder: Path) -> dict[str, Any]:
    """Everything of a run that may not depend on when it was done, or how often it was stopped."""
    run = RunFolder(folder)
    found = Checkpoints(folder / "checkpoints", run.scenario()).load()
    assert found is not None
    progress = found[1]["progress"]
    weights = [progress[name].to_numpy_ndarrays() for name in ("arrays", "best_arrays")]
    summary = {k: v for k, v in run.summary().items() if k not in ("seconds", "finished", "placement")}
    clients = run.clients().to_pylist()
    return {
        "status": run.status(),
        "weights": [w.tobytes() for model in weights for w in model],
        "rounds": untimed(folder),
        "clients": [
            {k: v for k, v in row.items() if k not in ("seconds", "metric_traces")} for row in clients
        ],
        "sites": plain(run.sites()),
        "summary": summary,
    }


def assert_same(folder: Path, whole: dict[str, Any]) -> None:
    found = result(folder)
    assert found["status"] == "finished"
    for name in whole:
        np.testing.assert_equal(found[name], whole[name], err_msg=name)  # NaN equals NaN here


def started(directory: Path, before: str = "") -> BaseProcess:
    """Start a run in a process of its own.

    Args:
        directory: gets the run folder; before: Python that runs first in that process.
    """
    given = [argument for setting in settings(directory) for argument in ("--set", setting)]
    return start_shoal(["run", "linear", "--quiet", *given], before)


def folder_of(directory: Path) -> Path:
    (folder,) = directory.iterdir()
    return folder


def go_on(folder: Path) -> None:
    run = RunFolder(folder)
    try:
        resume_run(run, run.scenario())
    finally:
        run.close()


def rounds_done(directory: Path) -> int:
    files = [path for folder in directory.glob("*") for path in folder.glob("events.jsonl")]
    return sum(path.read_bytes().count(b'"event": "round"') for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_random_instant(tmp_path: Path, whole: dict[str, Any], seed: int) -> None:
    """Twice, so that also a run that has been resumed is killed."""
    draw = random.Random(seed)
    process = started(tmp_path)
    wanted = draw.randrange(1, ROUNDS)
    while rounds_done(tmp_path) < wanted and process.is_alive():
        time.sleep(0.001)
    time.sleep(draw.random() * 0.05)
    process.kill()
    process.join()
    folder = folder_of(tmp_path)
    assert RunFolder(folder).status() in ("killed", "finished")
    if RunFolder(folder).status() == "killed":
        go_on(folder)
    assert_same(folder, whole)


# Each kills the process at one step of writing the checkpoint of a round. The n-th call is of round n - 2,
# because the start and round 0 come first.
KILL = "import os, signal\nkill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
INSTANTS = {
    "before the file": (
        "from shoal.server.checkpoint import Checkpoints\nsave = Checkpoints.save\n"
        "def f(self, number, state):\n    kill() if number == 5 else save(self, number, state)\n"
        "Checkpoints.save = f"
    ),
    "within the file": (
        "import numpy as np\nwrite, calls = np.lib.format.write_array, []\n"
        "def f(stream, array, **k):\n    write(stream, array, **k)\n"
        "    calls.append('ZipWriteFile' in type(stream).__name__)\n"  # Flower writes arrays too
        "    if sum(calls) == 30: kill()\n"
        "np.lib.format.write_array = f"
    ),
    "between write and rename": (
        "from pathlib import Path\nreplace = Path.replace\n"
        "def f(self, target):\n    kill() if target.name == 'round-000005.zip' else replace(self, target)\n"
        "Path.replace = f"
    ),
    "after the rename": (
        "from pathlib import Path\nreplace = Path.replace\n"
        "def f(self, target):\n    replace(self, target)\n"
        "    if target.name == 'round-000005.zip': kill()\n"
        "Path.replace = f"
    ),
    "in the final test": (
        "from shoal.server.final_test import FinalTest\nFinalTest.run = lambda *a, **k: kill()"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
def test_killed_at_a_known_instant(tmp_path: Path, whole: dict[str, Any], instant: str) -> None:
    process = started(tmp_path, KILL + INSTANTS[instant])
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    folder = folder_of(tmp_path)
    assert RunFolder(folder).status() == "killed"
    go_on(folder)
    assert_same(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_the_round_and_leaves(
    tmp_path: Path, whole: dict[str, Any], number: signal.Signals
) -> None:
    process = started(tmp_path)
    while rounds_done(tmp_path) < 3:
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    folder = folder_of(tmp_path)
    assert RunFolder(folder).status() == "interrupted"
    done = RunFolder(folder).summary()["rounds"]
    assert (folder / "checkpoints" / f"round-{done:06}.zip").exists()
    go_on(folder)
    assert_same(folder, whole)


class Crash(BaseException):
    """Stands for the end of the process where that costs no new one."""


def crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, at: int = 5) -> Path:
    """Return the folder of a run that ended when it was to save a round."""
    save = Checkpoints.save

    def fail(self: Checkpoints, number: int, state: Any) -> None:
        if number >= at:
            raise Crash
        save(self, number, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fail)
        scenario = load_scenario("linear", [*settings(tmp_path), *overrides])
        with pytest.raises(Crash):
            run_scenario(scenario)
    return folder_of(tmp_path)


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = crashed(tmp_path, monkeypatch)
    newest = max((folder / "checkpoints").glob("round-*"))
    newest.write_bytes(newest.read_bytes()[:-7])
    go_on(folder)
    assert_same(folder, whole)
    told = [text for _, text in RunFolder(folder).messages()]
    assert any(text.startswith("checkpoint refused") and newest.name in text for text in told)
    assert "resumed after round 3" in told


def test_rounds_since_the_last_checkpoint_are_done_again(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = crashed(tmp_path, monkeypatch, "output.checkpoint_every=4", at=8)
    go_on(folder)
    assert_same(folder, whole)
    assert "resumed after round 4" in [text for _, text in RunFolder(folder).messages()]


def test_it_goes_on_with_other_workers(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    folder = crashed(tmp_path, monkeypatch)
    run = RunFolder(folder)
    resources = run.scenario().resources.model_copy(update={"backend": "ray", "workers": 2})
    resume_run(run, run.scenario().model_copy(update={"resources": resources}))
    assert_same(folder, whole)


def test_patience_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = ("training.early_stopping.patience=3", "training.early_stopping.min_delta=1000.0")
    folder = crashed(tmp_path, monkeypatch, *stop, at=2)
    go_on(folder)
    run = RunFolder(folder)
    # Round 0 is the best; 1, 2 and 3 are not better by 1000.
    assert (run.status(), run.summary()["rounds"]) == ("stopped early", 3)


def test_before_the_first_checkpoint_it_begins_again(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = crashed(tmp_path, monkeypatch, at=0)
    go_on(folder)
    assert_same(folder, whole)


def test_what_cannot_go_on_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = crashed(tmp_path, monkeypatch)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("seed = 1", "seed = 2"))
    with pytest.raises(CheckpointError, match=r"another config; these keys differ: seed"):
        go_on(folder)

    (folder / "config.toml").write_text(text)
    go_on(folder)
    with pytest.raises(RunError, match="nothing left to do"):
        go_on(folder)


def test_data_that_have_changed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = crashed(tmp_path, monkeypatch)
    more = load_scenario("linear", [*settings(tmp_path), "partition.clients=9"])
    changed = datasets.load_population(more)
    monkeypatch.setattr(datasets, "load_population", lambda scenario: changed)
    with pytest.raises(CheckpointError, match=r"the data have changed: client-\d had 100 rows, now \d+"):
        go_on(folder)
