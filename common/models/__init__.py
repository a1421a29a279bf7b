"""The models that clients train: built-in models by name, or the user's own function.

Importing this package does not import Keras; `build` and `compile_model` do, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.common.config import ModelConfig, Scenario, TrainingConfig
from shoal.common.keras_loading import load_keras
from shoal.common.models.catalog import MODELS, check
from shoal.common.models.losses import LOSSES, check_loss
from shoal.common.schema import InputSpec, Task

if TYPE_CHECKING:
    import keras

__all__ = ["LOSSES", "MODELS", "build", "check", "check_loss", "compile_model", "scenario_problems"]


def scenario_problems(scenario: Scenario) -> list[str]:
    """Return one line for each problem with a scenario's model and loss; imports nothing heavy."""
    return [*check(scenario.model), *check_loss(scenario.training)]


def build(model: ModelConfig, spec: InputSpec, num_classes: int, *, seed: int) -> keras.Model:
    """Build a model with its seeded initial weights, uncompiled.

    Args:
        model: name and arguments.
        spec: the encoded input.
        num_classes: 0 for regression, 2 for a binary task (one sigmoid output), else softmax outputs.
        seed: the run's seed; the same seed gives bit-identical weights in any process.

    Raises:
        ConfigError: unknown name or argument; or the user's function cannot be imported.
        ModelError: the model does not accept this input, the user's function failed, or the output does
            not fit the labels.
    """
    load_keras()
    from shoal.common.models.building import build_model

    return build_model(model, spec, num_classes, seed=seed)


def compile_model(model: keras.Model, training: TrainingConfig, task: Task) -> None:
    """Compile a model with the optimizer and loss of the configuration.

    No Keras metrics are set: AUC and F1 are not means over batches, so metrics are computed from the
    predictions of all rows of a split.

    Raises:
        ConfigError: the name or arguments of the optimizer or loss are invalid, or do not fit the task.
        ModelError: the model's output does not fit the labels.
    """
    from shoal.common.models.compiling import compile_checked

    compile_checked(model, training, task)
