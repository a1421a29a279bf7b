"""shoal's side of the comparisons: rounds through the real server, engine, workers and run folder.

As a program it takes a JSON object of the arguments of `run` and prints what it measured as JSON.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.arrays import Arrays
from benchmarks.children import answer
from benchmarks.models import compiled
from benchmarks.tasks import TASKS
from shoal.common import profiling
from shoal.common.events import ClientRow, Observer, RoundRow, SiteRow
from shoal.server.app import Hooks, Outcome
from shoal.simulations.results import RunFolder
from shoal.simulations.run import coordinate


@dataclass(slots=True)
class Rounds:
    """What a run measured.

    Attributes:
        seconds: of each round after the first, with everything that belongs to it.
        phases: of the same rounds, as in `RoundRow.phases`.
        between: what was measured between rounds.
        path: how clients trained; accuracy, loss: on the held-out rows, after all rounds.
    """

    seconds: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    between: list[Any] = field(default_factory=list)
    path: str = ""
    accuracy: float = float("nan")
    loss: float = float("nan")


class Stopwatch:
    """An Observer that measures rounds, and lets others work between them without being charged."""

    def __init__(self, rounds: Rounds, between: Callable[[], Any] | None) -> None:
        self._rounds = rounds
        self._between = between
        self._started = time.perf_counter()

    def on_message(self, text: str) -> None:
        if text.startswith("execution mode: "):
            self._rounds.path = text.split(": ")[1].split(",")[0]

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        """Take a round in; the first is a warm-up, and round 0 only an evaluation."""
        seconds = time.perf_counter() - self._started
        if row.round > 1:
            self._rounds.seconds.append(seconds)
            self._rounds.phases.append(dict(row.phases))
        if row.round > 0 and self._between is not None:
            self._rounds.between.append(self._between())
        profiling.take()
        self._started = time.perf_counter()

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """The final test is not measured."""


def run(
    task: str,
    rounds: int,
    *,
    full: bool = False,
    path: str = "auto",
    workers: int = 2,
    clients: int | None = None,
    data: str | None = None,
    between: Callable[[], Any] | None = None,
) -> Rounds:
    """Run a task's rounds and measure them.

    Args:
        task: name; rounds: to measure, after one to warm up.
        full: evaluate and log each round, into a run folder; else rounds are trained only.
        path, workers: as in `common.config.ResourcesConfig`.
        clients: of the federation, `None` for all of the task.
        data: what `Arrays.write` wrote, to measure the final model on its held-out rows.
        between: called after each round from the first on; what it returns is kept.
    """
    measured, outcomes = Rounds(), list[Outcome]()
    chosen = TASKS[task]
    # The last round is always evaluated: where training alone is measured, it is one more.
    scenario = chosen.scenario(rounds + (1 if full else 2), workers=workers, execution_mode=path)
    every = 1 if full else scenario.training.rounds
    with tempfile.TemporaryDirectory() as directory:
        scenario = scenario.model_copy(
            update={
                "server": scenario.server.model_copy(update={"evaluate_every": every}),
                "output": scenario.output.model_copy(update={"directory": directory}),
            }
        )
        watch = Stopwatch(measured, between)
        folder = RunFolder.create(scenario) if full else None
        observers: list[Observer] = [watch] if folder is None else [folder, watch]
        hooks = Hooks(observers, lambda fitted: None)
        coordinate(scenario, chosen.population(clients), hooks, outcomes.append)
        if folder is not None:
            folder.close()
    if not full:
        measured.seconds.pop()
        measured.phases.pop()
    if data is not None:
        weights = outcomes[0].progress.arrays.to_numpy_ndarrays()
        measured.accuracy, measured.loss = evaluate(task, weights, Arrays.read(data))
    return measured


def evaluate(task: str, weights: Sequence[np.ndarray], arrays: Arrays) -> tuple[float, float]:
    """Return accuracy and loss of weights on the held-out rows."""
    import keras

    model = compiled(task, keras, 0.0)
    model.set_weights(list(weights))
    predicted = model.predict(arrays.test_x, verbose=0)
    chosen = predicted.argmax(axis=1) if predicted.shape[1] > 1 else predicted[:, 0] > 0.5
    loss = float(model.evaluate(arrays.test_x, arrays.test_y, verbose=0))
    return float(np.mean(chosen == arrays.test_y)), loss


def main(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run as told by a JSON object."""
    return asdict(run(**arguments))


if __name__ == "__main__":
    answer(main)
