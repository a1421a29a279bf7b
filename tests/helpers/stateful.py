"""Runs of algorithms with client states: a problem with a closed form, and the bits that a run leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.common.config.file import load_scenario
from shoal.common.schema import Column, Schema, Shard
from shoal.common.weights import record_to_weights
from shoal.server.app import Hooks, Outcome
from shoal.server.checkpoint import Checkpoints
from shoal.simulations.closed_form import closed_form
from shoal.simulations.results import RunFolder
from shoal.simulations.run import coordinate

Weights = list[np.ndarray]


@dataclass(frozen=True, slots=True)
class Lines:
    """Clients that each have a line of their own: y = slope x + intercept, without noise.

    Attributes:
        rows_of: rows of each client; slopes, intercepts: of its line; centres: around which its x lie.
    """

    rows_of: tuple[int, ...]
    slopes: tuple[float, ...] = (1.0, -2.0, 4.0, 0.5)
    intercepts: tuple[float, ...] = (0.0, 3.0, -1.0, 2.0)
    centres: tuple[float, ...] = (-1.0, 0.0, 0.5, 1.5)

    @property
    def schema(self) -> Schema:
        return Schema((Column("x", "numeric"),), "regression", (), "y")

    def __len__(self) -> int:
        return len(self.rows_of)

    def name(self, client: int) -> str:
        return f"client-{client}"

    def rows(self, client: int) -> int:
        return self.rows_of[client]

    def shard(self, client: int) -> Shard:
        x = self.centres[client] + np.random.default_rng(client).normal(size=self.rows_of[client])
        return Shard({"x": x}, (self.slopes[client] * x + self.intercepts[client]).astype(np.float32))


def distance_to_optimum(strategy: str, population: Lines, rounds: int, *settings: str) -> float:
    """Return the largest distance of a coefficient from least squares on all training rows together."""
    scenario = load_scenario(
        "linear",
        [
            f"strategy.name={strategy}",
            f"training.rounds={rounds}",
            "training.local_steps=5",
            "training.batch_size=1000",  # every step sees all rows of the client
            "training.learning_rate=0.1",
            "training.schedule=constant",
            "data.validation_fraction=0",
            "output.bootstrap=0",
            "resources.backend=serial",
            *settings,
        ],
    )
    found: list[Outcome] = []
    coordinate(scenario, population, Hooks([], lambda fitted: None), found.append)
    exact = closed_form(scenario, population, found[0].fitted.spec, found[0].progress.arrays)
    assert exact is not None
    return max(abs(pair["learnt"] - pair["exact"]) for pair in exact.values())


def bits(folder: Path) -> list[bytes]:
    """Return the last weights, and the server's control variates if there are some."""
    found = Checkpoints(folder / "checkpoints", RunFolder(folder).scenario()).load()
    assert found is not None
    state = found[1]
    return [np.asarray(w).tobytes() for w in (*weights(folder), *state["algorithm"].get("c", ()))]


def weights(folder: Path) -> Weights:
    found = Checkpoints(folder / "checkpoints", RunFolder(folder).scenario()).load()
    assert found is not None
    return record_to_weights(found[1]["progress"]["arrays"])


class Crash(BaseException):
    """Stands for the end of the process."""
