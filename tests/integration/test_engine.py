"""The Grid over serial and Ray executors: results, order, failures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from shoal.clients.worker import WorkerContext
from shoal.common.config import ResourcesConfig
from shoal.common.errors import ConfigError, WorkerError
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.sites import Sites
from shoal.simulations.engine.cluster import Room, worker_count
from shoal.simulations.engine.executors import make_executor
from shoal.simulations.engine.grid import EngineGrid, Executor
from shoal.simulations.run_app import LoadClientApp, run_app

APPS = Path(__file__).parents[1] / "apps"
CLIENTS = 7


@pytest.fixture(autouse=True)
def in_app_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the app's folder, as its author would; worker processes look it up from there."""
    monkeypatch.chdir(APPS)
    monkeypatch.syspath_prepend(str(APPS))


def executor(backend: str, workers: int = 2) -> Executor:
    resources = ResourcesConfig.model_validate({"backend": backend, "workers": workers, "max_retries": 1})
    federation = WorkerContext(1, {}, CLIENTS, show_errors=backend == "serial")
    return make_executor(LoadClientApp("mean_app:client"), federation, resources)


def grid_over(running: Executor) -> EngineGrid:
    identify_process(1)
    return EngineGrid(running, Sites(CLIENTS, str), make_run(1), clients_per_chunk=1)


@pytest.fixture(scope="module")
def ray_executor(ray_session: None) -> Iterator[Executor]:
    """One pool of two workers for the tests of this file that leave it whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(APPS)
        patch.syspath_prepend(str(APPS))
        running = executor("ray")
        yield running
        running.close()


def train(grid: EngineGrid, timeout: float | None = None, **config: object) -> list[Message]:
    content = RecordDict(
        {"arrays": ArrayRecord([np.zeros(2, np.float32)]), "config": ConfigRecord(config)}  # type: ignore[arg-type]
    )
    # asked in descending order: replies come in ascending order whatever the order asked
    messages = [Message(content, node, "train") for node in reversed(grid.get_node_ids())]
    return grid.send_and_receive(messages, timeout=timeout)


def updates(replies: list[Message]) -> dict[int, float]:
    return {
        r.metadata.src_node_id: float(r.content["arrays"].to_numpy_ndarrays()[0][0])
        for r in replies
        if r.has_content()
    }


# node ids begin at 2, partition i adds i
EXPECTED = {2 + i: float(i) for i in range(CLIENTS)}


def test_serial_answers_in_order() -> None:
    replies = train(grid_over(executor("serial")))
    assert [r.metadata.src_node_id for r in replies] == list(EXPECTED)
    assert updates(replies) == EXPECTED


def test_ray_answers_the_same(ray_executor: Executor) -> None:
    replies = train(grid_over(ray_executor))
    assert [r.metadata.src_node_id for r in replies] == list(EXPECTED)
    assert updates(replies) == EXPECTED
    pids = {r.content["metrics"]["pid"] for r in replies}
    assert len(pids) <= 2  # runtime workers, not a process a client


def test_state_of_a_client_follows_it_from_worker_to_worker(ray_executor: Executor) -> None:
    grid = grid_over(ray_executor)
    for seen in (1, 2, 3):
        assert {r.content["metrics"]["seen"] for r in train(grid)} == {seen}
    assert len(grid.contexts) == CLIENTS


def test_an_exception_is_that_client_s_only_and_its_text_stays(ray_executor: Executor) -> None:
    replies = train(grid_over(ray_executor), **{"raise": 3})
    failed = [r for r in replies if r.has_error()]
    assert [r.metadata.src_node_id for r in failed] == [5]
    assert "ValueError" in failed[0].error.reason
    assert "misbehave" in failed[0].error.reason  # says where
    assert "secret" not in failed[0].error.reason  # but not what it said, which may quote a row
    assert updates(replies) == {k: v for k, v in EXPECTED.items() if k != 5}


def test_serial_shows_the_text_of_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [r for r in train(grid_over(executor("serial")), **{"raise": 3}) if r.has_error()]
    assert "secret row 42" in failed[0].error.reason
    assert "Traceback" in capsys.readouterr().err


def test_a_worker_that_dies_is_replaced_and_its_chunk_repeated(
    ray_executor: Executor, tmp_path: Path
) -> None:
    replies = train(grid_over(ray_executor), **{"die-once": 4, "marker": str(tmp_path / "died")})
    assert (tmp_path / "died").exists()
    assert updates(replies) == EXPECTED


def test_a_chunk_that_always_kills_its_worker_is_given_up(ray_executor: Executor) -> None:
    grid = grid_over(ray_executor)
    replies = train(grid, die=0)
    assert updates(replies) == {k: v for k, v in EXPECTED.items() if k != 2}
    lost = [r.error.reason for r in replies if r.has_error()]
    assert len(lost) == 1
    assert "died 2 times" in lost[0]  # the first try and max_retries = 1
    assert updates(train(grid)) == EXPECTED  # the pool is whole again


def test_a_client_that_kills_workers_does_not_take_its_chunk_with_it(ray_executor: Executor) -> None:
    """All seven clients are one chunk: after max_retries they are asked one by one."""
    identify_process(1)
    grid = EngineGrid(ray_executor, Sites(CLIENTS, str), make_run(1), clients_per_chunk=CLIENTS)
    replies = train(grid, die=3)
    assert updates(replies) == {k: v for k, v in EXPECTED.items() if k != 5}
    assert [r.metadata.src_node_id for r in replies if r.has_error()] == [5]


def test_a_hung_worker_is_given_up_at_the_deadline(ray_executor: Executor) -> None:
    grid = grid_over(ray_executor)
    replies = train(grid, timeout=15, hang=6)
    assert updates(replies) == {k: v for k, v in EXPECTED.items() if k != 8}
    assert updates(train(grid)) == EXPECTED


def test_a_worker_that_has_grown_too_large_is_replaced(
    ray_session: None, caplog: pytest.LogCaptureFixture
) -> None:
    """No Python process fits into 1 MB, so every chunk is answered by a new worker."""
    resources = ResourcesConfig.model_validate({"workers": 1, "worker_memory_mb": 1})
    federation = WorkerContext(1, {}, CLIENTS, show_errors=False)
    running = make_executor(LoadClientApp("mean_app:client"), federation, resources)
    try:
        grid = grid_over(running)
        replies = train(grid)
        (load,) = grid.placement()
    finally:
        running.close()
    assert updates(replies) == EXPECTED
    assert load.replaced == CLIENTS
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "more than its 1.0 MB (the 4. time)" in text]
    assert len(told) == 3  # the 1st, the 2nd and the 4th of 7 times
    assert len({r.content["metrics"]["pid"] for r in replies}) == CLIENTS


@pytest.mark.parametrize(
    ("gpus", "asked", "workers", "found"),
    [
        (0.0, 0.0, 3, 3),  # no GPU wanted: as many workers as asked
        (2.0, 0.5, 3, 3),  # 3 · 0.5 fit into 2
        (1.0, 1.0, 0, 1),  # one whole GPU each: as many as there are GPUs
    ],
)
def test_workers_are_as_many_as_gpus_allow(gpus: float, asked: float, workers: int, found: int) -> None:
    resources = ResourcesConfig.model_validate({"workers": workers, "gpus_per_worker": asked})
    assert worker_count(resources, 100, Room(8, 64 << 30, gpus)) == found


def test_a_gpu_that_is_not_there_is_refused_in_words() -> None:
    resources = ResourcesConfig.model_validate({"workers": 4, "gpus_per_worker": 0.5})
    with pytest.raises(WorkerError, match=r"4 workers need 0\.5 GPUs each, Ray sees 1"):
        worker_count(resources, 100, Room(8, 64 << 30, 1.0))


@pytest.mark.slow
def test_workers_that_cannot_start_are_reported_with_their_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `types.py` before Python's own ends each worker at once; Ray starts them again for ever."""
    (tmp_path / "types.py").write_text("")
    code = (
        "import test_engine as t, shoal.simulations.engine.starting as s\n"
        "from shoal.common.environment import QUIET\n"
        "s.CRASHED_S = 3.0\n"
        f"QUIET['PYTHONPATH'] = {str(tmp_path)!r}\n"
        "t.train(t.grid_over(t.executor('ray')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stderr[done.stderr.index("WorkerError") :]
    assert "workers did not start within" in last
    assert "ImportError: cannot import name" in last
    assert str(tmp_path / "types.py") in last


def test_push_and_pull() -> None:
    grid = grid_over(executor("serial"))
    content = RecordDict({"arrays": ArrayRecord([np.zeros(1, np.float32)]), "config": ConfigRecord()})
    ids = grid.push_messages([Message(content, node, "train") for node in (2, 3)])
    assert updates(grid.pull_messages(ids)) == {2: 0.0, 3: 1.0}
    assert grid.pull_messages(ids) == []  # each reply is handed out once


@pytest.mark.parametrize("backend", ["serial", "ray"])
def test_run_app_runs_a_stranger_s_apps(
    backend: str, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round adds the example-weighted mean of 0..4: Σ p(p+1) / Σ (p+1) = 40/15; three rounds: 8."""
    (tmp_path / "mean_app.py").write_text((APPS / "mean_app.py").read_text())
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app.config]\nnum-server-rounds = 3\n")
    monkeypatch.chdir(tmp_path)
    run_app("mean_app:server", "mean_app:client", 5, backend=backend, workers=2)
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["arr_0"], np.full((3, 2), 8.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mean_app", "is not of the form package.module:name"),
        ("mean_app:nothing", "cannot be loaded"),
        ("no_such_module:client", "cannot be loaded"),
        ("mean_app:client", "is a ClientApp, expected a ServerApp"),
    ],
)
def test_run_app_explains_a_wrong_path(path: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_app(path, "mean_app:client", 2, backend="serial")
