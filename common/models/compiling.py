"""Gives a model its optimizer and loss; imports Keras."""

from __future__ import annotations

import inspect
from typing import Any, Final

import keras

from common import errors
from common.config import TrainingConfig
from common.errors import ConfigError
from common.schema import Task

USUAL_LOSS: Final[dict[Task, str]] = {
    "binary": "binary_crossentropy",
    "multiclass": "sparse_categorical_crossentropy",
    "regression": "mean_squared_error",
}


def compile_checked(model: keras.Model, training: TrainingConfig, task: Task) -> None:
    """Compile a model; see `common.models.compile_model`."""
    # XLA is off: it compiles again for every number of rows in a last, smaller batch.
    model.compile(optimizer=_optimizer(training), loss=_loss(training, task), jit_compile=False)


def _optimizer(training: TrainingConfig) -> keras.optimizers.Optimizer:
    found = keras.optimizers.get(training.optimizer)
    return _make(
        type(found), {"learning_rate": training.learning_rate, **training.optimizer_args}, "optimizer"
    )


def _loss(training: TrainingConfig, task: Task) -> keras.losses.Loss:
    name = USUAL_LOSS[task] if training.loss == "auto" else training.loss
    known = {
        _snake(k): v
        for k, v in vars(keras.losses).items()
        if inspect.isclass(v) and issubclass(v, keras.losses.Loss) and v is not keras.losses.Loss
    }
    if name not in known:
        raise ConfigError(f"training.loss: {errors.unknown_name('loss', name, known)}")
    return _make(known[name], dict(training.loss_args), "loss")


def _make(kind: type[Any], given: dict[str, Any], what: str) -> Any:
    known = [n for n in inspect.signature(kind.__init__).parameters if n not in ("self", "kwargs", "args")]
    for name in given:
        if name not in known:
            unknown = errors.unknown_name(f"argument of {kind.__name__}", name, known)
            raise ConfigError(f"training.{what}_args: {unknown}")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training.{what}_args: {kind.__name__} refuses them: {error}") from error


def _snake(name: str) -> str:
    """Turn BinaryCrossentropy into binary_crossentropy, as Keras' own names are."""
    parts = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return {"k_l_divergence": "kl_divergence", "c_t_c": "ctc"}.get(parts, parts)
