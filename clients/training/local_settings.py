"""The settings of one local training, and which rows each optimisation step uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.seeds import integer_seed


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The settings of one local training, from the server and the scenario.

    Attributes:
        learning_rate: of the optimizer.
        batch_size: rows per step; the last step of an epoch may have fewer.
        epochs: passes over the rows; ignored if `steps` is given.
        steps: optimisation steps; `None` for whole epochs.
        class_weights: weight by class index; `None` for none.
        dropout_seed: seed of the model's random layers.
        keep_optimizer: continue with the optimizer's state instead of a fresh one.
    """

    learning_rate: float
    batch_size: int
    epochs: int = 1
    steps: int | None = None
    class_weights: tuple[float, ...] | None = None
    dropout_seed: int = 0
    keep_optimizer: bool = False


@dataclass(frozen=True, slots=True)
class LocalTask:
    """One client's local training: encoded inputs (rows, ...), labels (rows,), settings, and row order."""

    x: NDArray[Any]
    y: NDArray[Any]
    settings: LocalSettings
    rng: np.random.Generator

    @property
    def steps(self) -> int:
        """Optimisation steps of the training."""
        size, epochs, steps = self.settings.batch_size, self.settings.epochs, self.settings.steps
        return len(_bounds(len(self.y), size, epochs, steps)[1]) - 1


def batch_plan(
    rows: int, settings: LocalSettings, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Plan which rows each optimisation step uses.

    Args:
        rows: rows of the client, at least 1.
        settings: gives batch_size, and epochs or steps.
        rng: draws a new order for each epoch.

    Returns:
        order: row indices of all steps, concatenated.
        bounds: (steps + 1,); step i takes order[bounds[i]:bounds[i + 1]].
    """
    epochs, bounds = _bounds(rows, settings.batch_size, settings.epochs, settings.steps)
    order = np.concatenate([rng.permutation(rows) for _ in range(epochs)])
    return order[: bounds[-1]].astype(np.int32), bounds


@lru_cache(maxsize=4096)  # clients have few distinct sizes
def _bounds(rows: int, batch_size: int, epochs: int, steps: int | None) -> tuple[int, NDArray[np.int32]]:
    """Return how many permutations of the rows are needed, and the bounds of the batches in them."""
    per_epoch = -(-rows // batch_size)
    steps = epochs * per_epoch if steps is None else steps
    epochs = -(-steps // per_epoch)
    starts = np.arange(per_epoch) * batch_size
    bounds = (np.arange(epochs)[:, None] * rows + starts).reshape(-1)
    bounds = np.append(bounds, epochs * rows)[: steps + 1].astype(np.int32)
    bounds.flags.writeable = False
    return epochs, bounds


def local_settings(
    scenario: Scenario,
    client: int,
    *,
    round_number: int,
    learning_rate: float,
    class_weights: tuple[float, ...] | None = None,
) -> LocalSettings:
    """Return the settings of a client's training in one round.

    Args:
        scenario: gives batch size, local epochs or steps, and the seed.
        client: the client's index; round_number: starting at 1.
        learning_rate, class_weights: as in the server's request.
    """
    training = scenario.training
    return LocalSettings(
        learning_rate=learning_rate,
        batch_size=training.batch_size,
        epochs=training.local_epochs,
        steps=training.local_steps,
        class_weights=class_weights,
        dropout_seed=integer_seed(scenario.seed, "dropout", dispatch=round_number, client=client),
    )
