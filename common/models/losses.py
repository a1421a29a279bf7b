"""The table of losses by name, with the tasks they fit. Does not import TensorFlow.

Keras' other losses are omitted because they expect other labels or outputs. Labels here are class indices
(not one-hot vectors) or targets, one per row; hinge losses, for example, need outputs in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shoal.common import errors
from shoal.common.config import TrainingConfig
from shoal.common.plugins import is_users_own, package_problems
from shoal.common.schema import Task


@dataclass(frozen=True, slots=True)
class LossEntry:
    """A loss of Keras.

    Attributes:
        kind: name of the class in `keras.losses`.
        tasks: the tasks that it supports.
    """

    kind: str
    tasks: tuple[Task, ...]


_MSE: Final = LossEntry("MeanSquaredError", ("regression", "binary"))  # of a probability: the Brier score
_MAE: Final = LossEntry("MeanAbsoluteError", ("regression", "binary"))

LOSSES: Final[Mapping[str, LossEntry]] = {
    "binary_crossentropy": LossEntry("BinaryCrossentropy", ("binary",)),
    "binary_focal_crossentropy": LossEntry("BinaryFocalCrossentropy", ("binary",)),
    "sparse_categorical_crossentropy": LossEntry("SparseCategoricalCrossentropy", ("multiclass",)),
    "mean_squared_error": _MSE,
    "mse": _MSE,
    "mean_absolute_error": _MAE,
    "mae": _MAE,
    "mean_absolute_percentage_error": LossEntry("MeanAbsolutePercentageError", ("regression",)),
    "mean_squared_logarithmic_error": LossEntry("MeanSquaredLogarithmicError", ("regression",)),
    "huber": LossEntry("Huber", ("regression",)),
    "log_cosh": LossEntry("LogCosh", ("regression",)),
    "poisson": LossEntry("Poisson", ("regression",)),
}

USUAL_LOSS: Final[Mapping[Task, str]] = {
    "binary": "binary_crossentropy",
    "multiclass": "sparse_categorical_crossentropy",
    "regression": "mean_squared_error",
}


def check_loss(training: TrainingConfig, task: Task | None = None) -> list[str]:
    """Return one line for each problem with the loss.

    Args:
        training: contains the name of the loss.
        task: the learning task, or `None` if it still has to be inferred from the data.
    """
    name = training.loss
    if name == "auto":
        return []
    if is_users_own(name):
        return package_problems("training.loss", name)
    if name not in LOSSES:
        return [f"training.loss: {errors.unknown_name('loss', name, (*LOSSES, 'auto'))}"]
    if task is not None and task not in LOSSES[name].tasks:
        fitting = ", ".join(sorted(n for n, entry in LOSSES.items() if task in entry.tasks))
        return [f'training.loss: "{name}" does not fit a {task} task; use one of {fitting}']
    return []
