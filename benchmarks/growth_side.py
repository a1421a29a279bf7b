"""One measurement of `benchmarks/growth.py`: a run of shoal's engine, its seconds and its memory.

As a program it takes a JSON object of the fields of `Case` and prints what it measured as JSON.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.serverapp import Grid

from benchmarks.children import answer
from shoal.common.config import Scenario
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.common.schema import Column, Schema, Shard
from shoal.server.app import Hooks
from shoal.simulations.run import coordinate

FEATURES: Final = 30
_SAMPLE_S: Final = 0.02
_NAMES: Final = tuple(f"x{k:02}" for k in range(FEATURES))
_SCHEMA: Final = Schema(tuple(Column(name, "numeric") for name in _NAMES), "binary", ("no", "yes"), "y")


@dataclass(frozen=True, slots=True)
class Case:
    """What is run.

    Attributes:
        population, cohort: clients, and how many of them train in a round; rounds: to run.
        rows: of a client, of which three quarters are trained on.
        hidden: units of the one hidden layer: the model has 32 · hidden + 1 weights.
        steps: optimisation steps of a client, `None` for one epoch of batches of 10.
        strategy, path, workers: as in the config.
        every: rounds between samples of memory.
        update: `[update]` of the config.
    """

    population: int
    cohort: int
    rounds: int
    rows: int = 80
    hidden: int = 64
    steps: int | None = None
    strategy: str = "FedAvg"
    path: str = "auto"
    workers: int = 2
    every: int = 1
    update: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Measured:
    """What it took.

    Attributes:
        seconds: of each round after the first.
        server, workers: runtime memory in bytes after some rounds, of this process and of all workers
            together; without what is mapped from Ray's shared store.
        before, peak: of this process before the first round, and the most since then.
    """

    seconds: list[float] = field(default_factory=list)
    server: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    before: int = 0
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A `common.schema.Population` of any size; a client's rows are drawn when they are asked for."""

    clients: int
    rows_each: int
    schema: Schema

    def __len__(self) -> int:
        return self.clients

    def name(self, client: int) -> str:
        return f"client-{client}"

    def rows(self, client: int) -> int:
        return self.rows_each

    def shard(self, client: int) -> Shard:
        rng = np.random.default_rng([1, client])
        x = rng.standard_normal((FEATURES, self.rows_each))
        y = (x[:5].sum(axis=0) + rng.standard_normal(self.rows_each) > 0).astype(np.int32)
        return Shard(dict(zip(_NAMES, x, strict=True)), y)


class Watch:
    """An Observer that notes the seconds of rounds, and memory after some."""

    def __init__(self, measured: Measured, every: int) -> None:
        self._measured, self._every = measured, every

    def on_message(self, text: str) -> None: ...

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        """Take a round in."""
        if row.round == 0:
            self._measured.before = self._measured.peak = private_bytes(os.getpid())
        elif row.round > 1:
            self._measured.seconds.append(row.seconds)
        if row.round % self._every == 0:
            self._measured.server.append(private_bytes(os.getpid()))
            self._measured.workers.append(sum(map(private_bytes, worker_pids())))

    def on_sites(self, rows: Sequence[SiteRow]) -> None: ...


def run(case: Case, wrap: Callable[[Grid], Grid] = lambda grid: grid) -> Measured:
    """Run a case; `wrap` puts something between the server and the Grid."""
    scenario = Scenario.model_validate(
        {
            "name": "growth",
            "data": {
                "source": "benchmarks.growth_side:none",
                "validation_fraction": 0.0,
                "test_fraction": 0.25,
            },
            "preprocessing": {"max_clients": 10, "min_sites": 1},
            "model": {"name": "mlp", "args": {"hidden": [case.hidden]}},
            "training": {"rounds": case.rounds, "batch_size": 10, "local_steps": case.steps},
            "strategy": {
                "name": case.strategy,
                "clients_per_round": case.cohort,
                "evaluate_clients": 1,
            },
            "update": dict(case.update),
            "resources": {"workers": case.workers, "execution_mode": case.path},
            "output": {"bootstrap": 0},
        }
    )
    measured, done = Measured(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(measured, done), daemon=True)
    sampler.start()
    hooks = Hooks([Watch(measured, case.every)], lambda fitted: None)
    population = Synthetic(case.population, case.rows, _SCHEMA)
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:  # for clients' states, if there are any
        coordinate(scenario, population, hooks, lambda outcome: None, wrap, state_folder=Path(folder))
    done.set()
    sampler.join()
    return measured


def _sample(measured: Measured, done: threading.Event) -> None:
    """Note the most memory that this process holds."""
    while not done.is_set():
        if measured.before:
            measured.peak = max(measured.peak, private_bytes(os.getpid()))
        time.sleep(_SAMPLE_S)


def private_bytes(pid: int) -> int:
    """Return the runtime memory of a process that is its own; 0 if it has ended."""
    try:
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = [line for line in told.splitlines() if line.startswith("RssAnon:")]
    return 1024 * int(lines[0].split()[1]) if lines else 0


def worker_pids() -> list[int]:
    """Return the Ray workers among the processes below this one."""
    parents: dict[int, int] = {}
    workers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if command.startswith(b"ray::"):
            workers.append(int(folder.name))
    return [pid for pid in workers if _is_below(os.getpid(), pid, parents)]


def _is_below(ancestor: int, pid: int, parents: Mapping[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


def main(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run as told by a JSON object."""
    return asdict(run(Case(**arguments)))


if __name__ == "__main__":
    answer(main)
