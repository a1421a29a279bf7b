"""Workers that are killed, and drivers that are: the result is the same, and nothing is left running."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rounds import untimed
from waiting import until

from shoal.common.config.file import load_scenario
from shoal.simulations.results import RunFolder
from shoal.simulations.run import run_scenario

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes as Linux lists them"),
]

MARK = "SHOAL_TEST"  # a variable that all processes of a run inherit
ROUNDS = 30
SETTINGS = ("partition.clients=24", "output.bootstrap=10")


class Run:
    """`shoal run linear` with two Ray workers, where paths have spaces and files the names of modules."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder / "my lab 项目"
        self.folder.mkdir()
        for name in ("random", "types", "server"):
            (self.folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py is not to be imported')\n")
        self.mark = uuid.uuid4().hex
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        where = ["--backend", "ray", "--workers", "2", "--quiet"]
        (self.folder / "a b").symlink_to(sys.prefix)
        programs = self.folder / "a b" / "bin"
        # By the program, not by `python -m`, which puts the current directory before Python's own modules.
        command = [
            str(programs / "python"),
            str(programs / "shoal"),
            "run",
            "linear",
            "--rounds",
            str(ROUNDS),
        ]
        environment = os.environ | {MARK: self.mark}
        with (self.folder / "said.txt").open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *settings, *where, *more],
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=out,
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def results(self) -> RunFolder:
        (folder,) = (self.folder / "runs").iterdir()
        return RunFolder(folder)

    def rounds(self) -> int:
        found = list((self.folder / "runs").glob("*/events.jsonl"))
        return found[0].read_text().count('"event": "round"') if found else 0

    def processes(self) -> dict[int, str]:
        """Command line by id, of all processes that this run has started."""
        found = {}
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended meanwhile, or is not ours to look at
        return {pid: text for pid, text in found.items() if text}

    def workers(self) -> list[int]:
        """Ids of the Ray workers that run clients."""
        return [pid for pid, text in self.processes().items() if text.startswith("ray::RunWorker")]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start a run with further arguments; if the test fails on the way, the run is ended."""
    runs: list[Run] = []

    def started(*more: str) -> Run:
        runs.append(Run(tmp_path, *more))
        return runs[-1]

    yield started
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(60)


def assert_nothing_left(run: Run, shared_before: set[str]) -> None:
    # Agents of a Ray whose driver was killed take up to a minute to notice.
    until(lambda: not run.processes(), 120, run.processes)
    assert set(os.listdir("/dev/shm")) <= shared_before


def listening_addresses(processes: Iterable[int]) -> list[IPv4Address]:
    """Return the addresses at which processes listen for TCP connections."""
    own = set()
    for pid in processes:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                own.add(os.readlink(entry))
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                # Words of 32 bits in the machine's order; the last is the IPv4 address, also of a mapped one.
                found.append(
                    IPv4Address(int(fields[1].partition(":")[0][-8:], 16).to_bytes(4, sys.byteorder))
                )
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rounds of a run in which nothing happens, in this process: its bits are those of any workers."""
    directory = tmp_path_factory.mktemp("calm")
    given = [
        f"training.rounds={ROUNDS}",
        "resources.execution_mode=sequential",
        f"output.directory={directory}",
    ]
    return untimed(run_scenario(load_scenario("linear", [*SETTINGS, *given])))


def test_workers_killed_at_random_instants_change_no_bit(
    start: Callable[..., Run], calm: list[dict[str, Any]]
) -> None:
    """Each kill costs a chunk one of its tries, so three kills with four tries more lose no client."""
    draw = random.Random(0)
    shared = set(os.listdir("/dev/shm"))
    run = start("--set", "resources.execution_mode=sequential", "--set", "resources.max_retries=4")
    killed = 0
    for at in sorted(draw.sample(range(1, ROUNDS - 2), 3)):
        until(lambda at=at: run.rounds() >= at and bool(run.workers()), 120, run.said)  # type: ignore[misc]
        time.sleep(draw.random() * 0.02)
        if workers := run.workers():
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed += 1
    assert run.process.wait(200) == 0, run.said()
    assert killed >= 2  # one that falls between two rounds may find the next one's worker not there yet
    np.testing.assert_equal(untimed(run.results().path), calm)
    assert_nothing_left(run, shared)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, "killed"), (signal.SIGTERM, "interrupted")], ids=["KILL", "TERM"]
)
def test_a_driver_that_is_ended_leaves_nothing_running(
    start: Callable[..., Run], number: signal.Signals, status: str
) -> None:
    shared = set(os.listdir("/dev/shm"))
    run = start()
    until(lambda: run.rounds() >= 3, 120, run.said)
    listening = listening_addresses(run.processes())
    assert len(listening) > 3  # Ray's own processes and workers
    assert {address for address in listening if not address.is_loopback} == set()
    run.process.send_signal(number)
    run.process.wait(60)
    assert run.results().status() == status
    assert_nothing_left(run, shared)


def test_a_run_that_fails_leaves_nothing_running(start: Callable[..., Run]) -> None:
    shared = set(os.listdir("/dev/shm"))
    run = start("--set", "training.learning_rate=1e8")
    assert run.process.wait(200) == 11, run.said()  # NonFiniteError
    assert run.results().status() == "failed"
    assert_nothing_left(run, shared)
