"""Measures the effect of an attack in a finished run, on this machine, where a simulation has all rows.

No message is sent to clients for this, so they disclose no more than in any other run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.common import metrics
from shoal.common.config import Scenario
from shoal.common.errors import CheckpointError
from shoal.common.schema import Population
from shoal.common.weights import record_to_weights
from shoal.server.checkpoint import Checkpoints
from shoal.simulations.attacks.poisoning import Backdoor
from shoal.simulations.attacks.trigger import mark
from shoal.simulations.lifecycle import CHECKPOINTS
from shoal.simulations.results import RunFolder


@dataclass(frozen=True, slots=True)
class Measured:
    """The effect of an attack on the model.

    Attributes:
        last: the metric of the last round's model on test rows, mean over honest sites.
        chosen: the same for the round selected by validation, whose model a run keeps.
        success: fraction of triggered test rows of other classes, at all honest sites, for which the last
            model predicts the backdoor's class; NaN without a backdoor.
    """

    last: float
    chosen: float
    success: float


class Judge:
    """Measures runs of one scenario that differ only in attack and strategy.

    Args:
        scenario: of all runs; population: its clients; malicious: clients that are excluded.
    """

    def __init__(self, scenario: Scenario, population: Population, malicious: frozenset[int]) -> None:
        self._runtime = ClientRuntime(scenario, population)
        self._honest = [client for client in range(len(population)) if client not in malicious]
        self.metric = metrics.monitored(scenario.training, population.schema.task)

    def measure(self, folder: RunFolder, backdoor: Backdoor | None) -> Measured:
        """Measure a finished run.

        Args:
            folder: of the run; backdoor: the attack whose trigger is tested, or `None`.

        Raises:
            CheckpointError: the run has no usable checkpoint.
        """
        found = Checkpoints(folder.path / CHECKPOINTS, folder.scenario()).load()
        if found is None:
            raise CheckpointError(f"{folder.path} holds no checkpoint")
        self._runtime.use_preprocessing(found[0]["base"]["preprocessing"])
        progress = found[1]["progress"]
        last, chosen = (
            self._runtime.full_weights(record_to_weights(progress[name]))
            for name in ("arrays", "best_arrays")
        )
        success = math.nan if backdoor is None else self._success(last, backdoor)
        return Measured(self._score(last), self._score(chosen), success)

    def _score(self, weights: list[NDArray[Any]]) -> float:
        """Return the mean metric over honest sites where it is defined and there are enough rows."""
        scores = []
        for client in self._honest:
            rows = self._runtime.rows(client)["test"]
            if len(rows.y) >= self._runtime.scenario.preprocessing.min_count:
                predicted, loss = self._runtime.trainer.evaluate(weights, rows.x, rows.y)
                task = self._runtime.schema.task
                scores.append(metrics.measure(task, rows.y, predicted, [self.metric], loss)[self.metric])
        finite = [score for score in scores if math.isfinite(score)]
        return fmean(finite) if finite else math.nan

    def _success(self, weights: list[NDArray[Any]], backdoor: Backdoor) -> float:
        spec, answers = self._runtime.encoder.spec.input_spec, []
        for client in self._honest:
            rows = self._runtime.rows(client)["test"]
            others = rows.y != backdoor.target
            if others.any():
                marked = mark(rows.x[others], spec, backdoor.size, backdoor.value)
                predicted, _ = self._runtime.trainer.evaluate(weights, marked, rows.y[others])
                answers.append(classes(predicted) == backdoor.target)
        return float(np.concatenate(answers).mean()) if answers else math.nan


def classes(predicted: NDArray[Any]) -> NDArray[np.int64]:
    """Return class indices (rows,) of probabilities (rows, classes), or of the positive class (rows, 1)."""
    if predicted.shape[1] == 1:
        return (predicted[:, 0] > 0.5).astype(np.int64)
    return np.asarray(predicted.argmax(axis=1), np.int64)
