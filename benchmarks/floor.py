"""shoal beside its floor: the same optimisation steps in one bare compiled loop, without federation.

The floor runs on the same cores between shoal's rounds, so that both meet the same noise. Its processes
wait without work while shoal's round goes on.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

from benchmarks import results
from benchmarks.arrays import Arrays
from benchmarks.bare_loops import LOOPS
from benchmarks.children import one_thread
from benchmarks.shoal_side import Rounds, run
from benchmarks.tasks import TASKS

Form = Literal["sequential", "stacked"]
CASES: Final[tuple[tuple[str, Form], ...]] = (
    ("mlp", "stacked"),
    ("mlp", "sequential"),
    ("cnn", "sequential"),
    ("lstm", "sequential"),
)
_CORES: Final = 2
_AIMS: Final = {"cnn": (1.10, 1.25), "lstm": (1.10, 1.25)}  # of a trained round, and of a whole one


class Floor:
    """Processes that hold a bare loop each, and run it when told."""

    def __init__(self, task: str, form: Form, data: str, shares: Sequence[Sequence[int]]) -> None:
        """Start a process for each share of the clients; together they have all cores.

        Args:
            task: name; form: of the loop; data: what `Arrays.write` wrote.
            shares: the clients of each process.
        """
        spawn = multiprocessing.get_context("spawn")
        self._members: list[tuple[SpawnProcess, Connection]] = []
        for share in shares:
            ours, theirs = spawn.Pipe()
            arguments = (theirs, task, form, data, list(share), _CORES // len(shares))
            process = spawn.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        for _ in range(2):  # traces, then warms up
            self.round()

    def round(self) -> float:
        """Run the loop once in all processes, and return the seconds until the last is done."""
        started = time.perf_counter()
        for _, pipe in self._members:
            pipe.send(True)
        for _, pipe in self._members:
            pipe.recv()
        return time.perf_counter() - started

    def close(self) -> None:
        """End the processes."""
        for process, pipe in self._members:
            pipe.send(False)
            pipe.close()
            process.join()


def main(*, quick: bool = False) -> None:
    """Measure all cases and write results/floor.*."""
    rows, found = [], {}
    for task, form in CASES[:1] if quick else CASES:
        with tempfile.TemporaryDirectory() as directory:
            data = str(Path(directory) / "data.npz")
            TASKS[task].write(Path(data), TASKS[task].cohort)
            floor = fastest_floor(task, form, data)
            count = _rounds(task, form, quick=quick)
            try:
                train = run(task, count, path=form, between=floor.round)
                full = run(task, count, full=True, path=form, between=floor.round)
            finally:
                floor.close()
        rows.append(_row(task, form, train, full))
        found[f"{task}, {form}"] = {"train": _plain(train), "full": _plain(full)}
    results.save(
        "floor",
        "Seconds a round, beside the bare loop of the same optimisation steps",
        ("task", "path", "floor", "shoal, training", "× floor", "with evaluation and log", "× floor", "aims"),
        rows,
        notes=[*_NOTES, *map(_phases, found.items())],
        data=found,
    )


def fastest_floor(task: str, form: Form, data: str) -> Floor:
    """Return the faster of one process a core, and one process on all cores."""
    clients = range(TASKS[task].cohort)
    one_each = [list(clients[k::_CORES]) for k in range(_CORES)]
    floors = [Floor(task, form, data, shares) for shares in (one_each, [list(clients)])]
    taken = [median(floor.round() for _ in range(3)) for floor in floors]
    best = floors.pop(taken.index(min(taken)))
    floors[0].close()
    return best


def times_floor(rounds: Rounds) -> float:
    """Return the median of each round's seconds over the mean of the floor's before and after it."""
    around = [(a + b) / 2 for a, b in itertools.pairwise(rounds.between)]
    return median(seconds / floor for seconds, floor in zip(rounds.seconds, around, strict=False))


_NOTES: Final = (
    "The floor is one `tf.function` a process that runs all steps of its clients, with a gradient tape and "
    "the SGD step written out, and resets the weights for each client; one process a core or one on all "
    "cores, whichever is faster. It neither shuffles, averages, checks, nor reads weights out.",
    "The stacked floor has one operation for all clients of a process, with or without XLA, whichever is "
    "faster. It gets its batches in order; shoal gathers rows, and masks those that a client lacks.",
    "A ratio is the median over rounds of a round's seconds over the mean of the floor's before and after "
    "it, so that both have met the same noise.",
)


def _row(task: str, form: Form, train: Rounds, full: Rounds) -> list[object]:
    aims = _AIMS.get(task)
    return [
        TASKS[task].title,
        form,
        median([*train.between, *full.between]),
        median(train.seconds),
        times_floor(train),
        median(full.seconds),
        times_floor(full),
        "" if aims is None else "≤ {:.2f}, ≤ {:.2f}".format(*aims),
    ]


def _rounds(task: str, form: Form, *, quick: bool) -> int:
    if quick:
        return 2
    return 20 if task == "mlp" and form == "stacked" else 8


def _plain(rounds: Rounds) -> dict[str, Any]:
    return {"seconds": rounds.seconds, "floor": rounds.between, "phases": rounds.phases}


def _phases(entry: tuple[str, dict[str, Any]]) -> str:
    """Return where a case's rounds spend their time, as a note."""
    name, found = entry
    parts = []
    for kind in ("train", "full"):
        rounds = found[kind]["phases"]
        names = sorted({phase for row in rounds for phase in row})
        means = {phase: median(row.get(phase, 0.0) for row in rounds) * 1e3 for phase in names}
        told = [f"{phase} {ms:.3g}" for phase, ms in sorted(means.items(), key=lambda item: -item[1])]
        parts.append(f"{kind}: {', '.join(told)}")
    return f"Median ms by phase, {name}: {'; '.join(parts)}."


def _serve(pipe: Connection, task: str, form: Form, data: str, share: list[int], threads: int) -> None:
    """Run the loop of a share of the clients whenever told to; the body of a process."""
    os.environ.update(one_thread(threads))  # TensorFlow reads them when it is imported, below
    loop: Callable[[], None] = LOOPS[form](task, Arrays.read(data), share)
    while pipe.recv():
        loop()
        pipe.send(None)
