"""Runs over a Ray cluster of several nodes on this machine, one of which is lost on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from rounds import untimed
from waiting import until

from benchmarks.compose import SOON, free_port, ray_program
from shoal.simulations.results import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROUNDS = 12
# Of the user's own; imports a module beside it, and leaves a note of where shoal was imported from.
MODEL = """
import os
from pathlib import Path

import layers_beside
import shoal

def make(input_spec, num_classes, notes):
    (Path(notes) / str(os.getpid())).write_text(shoal.__file__)
    return layers_beside.line(input_spec.shape)
"""
BESIDE = """
import keras

def line(shape):
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(1, kernel_initializer="zeros")])
"""


class Nodes:
    """Nodes of a Ray cluster on this machine, started as on several; each is one `ray start --block`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.address = f"127.0.0.1:{free_port()}"
        self.add("--head", "--port", self.address.rpartition(":")[2], "--include-dashboard", "false", cpus=0)

    def add(self, *arguments: str, cpus: int) -> subprocess.Popen[bytes]:
        where = arguments or ("--address", self.address)
        command = [*ray_program(self.folder), "start", "--block", *where]
        with (self.folder / "ray.txt").open("ab") as out:
            node = subprocess.Popen(
                [*command, "--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus)],
                cwd="/",
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | SOON,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.running.append(node)
        # Two that start at once on one machine get in each other's way.
        until(lambda: self.said().count("Ray runtime started") == len(self.running))
        return node

    def said(self) -> str:
        return (self.folder / "ray.txt").read_text()

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a node's processes at once, as when its machine loses power."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        self.running.remove(node)

    def close(self) -> None:
        for node in reversed(self.running):
            node.terminate()
            node.wait(timeout=60)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head for the driver, without CPUs, and two nodes for workers; the last test loses one of them."""
    found = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        found.add(cpus=1)
        found.add(cpus=1)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run in one process."""
    folder = tmp_path_factory.mktemp("serial")
    assert "Report" in told(run(folder, "--backend", "serial", "--output", "runs", "--quiet"))
    (found,) = (folder / "runs").iterdir()
    return found


def run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `shoal run` where the user's model is; it alone knows where shoal is."""
    (folder / "my_model.py").write_text(MODEL)
    (folder / "layers_beside.py").write_text(BESIDE)
    (folder / "notes").mkdir(exist_ok=True)
    given = {
        "model.name": "my_model:make",
        "model.args.notes": str(folder / "notes"),
        "training.rounds": ROUNDS,
        "partition.clients": 24,
        "output.bootstrap": 10,
        "resources.execution_mode": "sequential",
    }
    settings = [text for key, value in given.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "shoal", "run", "linear", *settings, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def told(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=300)
    return text


def results(folder: Path) -> list[dict[str, object]]:
    """What may not depend on where clients ran."""
    rows = untimed(folder)
    assert len(rows) == ROUNDS + 1
    return rows


def rounds_done(folder: Path) -> int:
    return sum(path.read_text().count('"event": "round"') for path in folder.glob("*/events.jsonl"))


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    process = run(tmp_path, "--ray-address", "127.0.0.1:1", "--backend", "ray")
    text = told(process)
    assert process.returncode != 0
    assert 'no Ray cluster at "127.0.0.1:1"' in text
    assert "ray start --head" in text


def test_clients_on_other_nodes_dial_in(nodes: Nodes, serial: Path, tmp_path: Path) -> None:
    where = ["--ray-address", nodes.address, "--backend", "ray", "--set", "resources.transport=grpc"]
    process = run(tmp_path, *where, "--output", "spread", "--quiet")
    assert "Report" in told(process)
    (other,) = (tmp_path / "spread").iterdir()
    traffic = ("bytes_up",)  # each answers for itself here
    for here, there in zip(results(serial), results(other), strict=True):
        np.testing.assert_equal(without(there, traffic), without(here, traffic))


def without(row: dict[str, object], keys: Sequence[str]) -> dict[str, object]:
    return {key: value for key, value in row.items() if key not in keys}


def test_a_node_is_lost_and_the_result_is_the_same(nodes: Nodes, serial: Path, tmp_path: Path) -> None:
    where = ["--ray-address", nodes.address, "--backend", "ray", "--workers", "2"]
    process = run(tmp_path, *where, "--output", "spread", "--quiet")
    until(lambda: rounds_done(tmp_path / "spread") >= 3 or process.poll() is not None)
    nodes.kill(nodes.running[-1])
    assert "Report" in told(process)

    (other,) = (tmp_path / "spread").iterdir()
    np.testing.assert_equal(results(other), results(serial))
    loads = RunFolder(other).summary()["placement"]
    assert len(loads) == 2
    assert sum(load["lost"] for load in loads) == 1
    # A round trains and evaluates 24 clients; what was lost with the node is done anew on the other.
    assert sum(load["messages"] for load in loads) >= 2 * 24 * ROUNDS
    assert all(load["bytes_down"] > 0 and load["bytes_up"] > 0 for load in loads)
    assert "By node of Ray" in (other / "report.html").read_text()
    # Workers had shoal from what the driver sent, and so had the user's modules.
    sources = {path.read_text() for path in (tmp_path / "notes").iterdir()}
    assert any("working_dir_files" in source for source in sources), sources
