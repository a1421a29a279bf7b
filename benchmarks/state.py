"""What it costs to keep a state a client on disk.

The store alone stands beside one bare write of the same bytes to a file; whole rounds with a state beside
rounds that differ in nothing else: top-k with error feedback, and without.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks import results
from benchmarks.children import measure as measure_run
from benchmarks.growth_side import Case as Rounds
from shoal.clients.state import DiskStateStore, StateBatch

AT_ONCE: Final = 20_000  # clients that are given a first state at a time


@dataclass(frozen=True)
class Case:
    population: int
    cohort: int
    numbers: int  # float32 a state
    rounds: int = 50
    filled: bool = False  # whether every client has a state before the first round


CASES: Final = {
    "2,000 of 1,000,000 clients, 2,000 numbers, from the first round on": Case(1_000_000, 2000, 2000),
    "2,000 of 100,000 clients, 2,000 numbers, all have a state": Case(100_000, 2000, 2000, filled=True),
    "2,000 of 1,000,000 clients, 20 numbers, all have a state": Case(1_000_000, 2000, 20, filled=True),
    "100 of 1,000 clients, 2,000 numbers, all have a state": Case(1000, 100, 2000, filled=True),
}
ROUNDS: Final = Rounds(
    population=1_000_000,
    cohort=2000,
    rounds=12,
    hidden=62,  # 32 · 62 + 1 = 1,985 weights, and so many numbers a state
    path="stacked",
)
QUICK: Final = Rounds(population=1000, cohort=20, rounds=3, hidden=4)
STEPS: Final = ("bare", "bare fsync", "read", "write", "mark", "release")


class Timer:
    """Wall and CPU seconds of each step of each round."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {step: [] for step in STEPS}
        self.cpu: dict[str, list[float]] = {step: [] for step in STEPS}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name].append(time.perf_counter() - wall)
        self.cpu[name].append(time.process_time() - cpu)


def main(*, quick: bool) -> None:
    """Measure and write the table."""
    cases = {"20 of 1,000 clients, 50 numbers": Case(1000, 20, 50, 3, filled=True)} if quick else CASES
    found = {name: measure(case) for name, case in cases.items()}
    columns = ["bare write", "bare fsync", "read", "write", "CPU of both", "mark", "disk (MB)", "states (MB)"]
    results.save(
        "state",
        "Client states on disk: median ms a round",
        ["case", *columns],
        [row(name, cases[name], case) for name, case in found.items()],
        notes=[
            "Each round reads and replaces the states of a random cohort, marks the store and releases the "
            "mark before last. A mark is two fsyncs and an entry of 20 bytes. Bare: one system call that "
            "appends the bytes of the cohort's states to a file of its own in the same round, and an fsync. "
            "Where the bare write is slow, the system is short of pages for its cache, and the store's write "
            "waits too. Disk: the states, those that two marks need, and 20 bytes for each state written.",
        ],
        data={name: {"case": asdict(cases[name]), **case} for name, case in found.items()},
    )
    whole_rounds(quick=quick)


def whole_rounds(*, quick: bool) -> None:
    """Measure rounds with and without a state in turns, and write the table."""
    case, turns = (QUICK, 1) if quick else (ROUNDS, 3)
    cases = {
        name: replace(case, update={"compress": "topk", "top_share": 0.1, "error_feedback": feedback})
        for name, feedback in (("top-k", False), ("top-k with error feedback", True))
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(turns):
        for name, one in cases.items():
            seconds[name] += measure_run("growth_side", asdict(one), timeout_s=600)["seconds"]
    without, with_state = (median(found) for found in seconds.values())
    results.save(
        "state-rounds",
        f"Rounds with and without client states ({case.cohort:,} of {case.population:,} clients, stacks)",
        ["update", "seconds a round"],
        [[name, median(found)] for name, found in seconds.items()],
        notes=[
            f"A round with states takes {with_state / without:.2f} times as long; the aim is at most 1.3. "
            f"A state has {32 * case.hidden + 1:,} float32 numbers. Its step also sorts out once more what "
            "the encoding leaves out.",
        ],
        data={"case": asdict(case), "seconds": seconds},
    )


def row(name: str, case: Case, found: dict[str, Any]) -> list[object]:
    """Return a row of the table."""
    wall, cpu = found["wall"], found["cpu"]
    both = 1e3 * median(read + write for read, write in zip(cpu["read"], cpu["write"], strict=True))
    states = 4 * case.numbers * found["states"] / 1e6
    shown = [1e3 * median(wall[step]) for step in ("bare", "bare fsync", "read", "write")]
    return [name, *shown, both, 1e3 * median(wall["mark"]), found["bytes_used"] / 1e6, states]


def measure(case: Case) -> dict[str, Any]:
    """Return what each round took, the size of the store, and how long it takes to restore a mark."""
    rng, timer = np.random.default_rng(0), Timer()
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder, bare_file(Path(folder)) as file:
        store = DiskStateStore(Path(folder) / "states")
        seen = fill(store, case) if case.filled else np.zeros(case.population, bool)
        marks = [store.mark()]
        for _ in range(case.rounds):
            cohort = np.sort(rng.choice(case.population, case.cohort, replace=False))
            states = rng.standard_normal((case.cohort, case.numbers), dtype=np.float32)
            with timer.step("bare"):
                os.write(file, states.data)
            with timer.step("bare fsync"):
                os.fdatasync(file)
            with timer.step("read"):
                assert len(store.read(cohort)) == seen[cohort].sum()
            with timer.step("write"):
                store.write(StateBatch(cohort, {"control": states}))
            with timer.step("mark"):
                marks.append(store.mark())
            with timer.step("release"):
                store.release(marks[max(0, len(marks) - 2)])
            seen[cohort] = True
        started = time.perf_counter()
        store.restore(marks[-1])
        restored, used = time.perf_counter() - started, store.bytes_used
        store.close()
    sizes = {"restore_s": restored, "bytes_used": used, "states": int(seen.sum())}
    return {"wall": timer.wall, "cpu": timer.cpu, **sizes}


def fill(store: DiskStateStore, case: Case) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Give every client a state."""
    for first in range(0, case.population, AT_ONCE):
        clients = np.arange(first, min(first + AT_ONCE, case.population))
        store.write(StateBatch(clients, {"control": np.zeros((len(clients), case.numbers), np.float32)}))
    return np.ones(case.population, bool)


@contextmanager
def bare_file(folder: Path) -> Iterator[int]:
    """Open a file to append to."""
    file = os.open(folder / "bare.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield file
    finally:
        os.close(file)
