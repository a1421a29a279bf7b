"""Gives a model its optimizer and loss; imports Keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import keras

from shoal.common import errors
from shoal.common.config import TrainingConfig
from shoal.common.errors import ConfigError, ModelError
from shoal.common.models.losses import LOSSES, USUAL_LOSS, check_loss
from shoal.common.plugins import is_users_own, load_object
from shoal.common.schema import Task

KERAS_OPTIMIZERS: Final[Mapping[str, type[keras.optimizers.Optimizer]]] = {
    "adadelta": keras.optimizers.Adadelta,
    "adafactor": keras.optimizers.Adafactor,
    "adagrad": keras.optimizers.Adagrad,
    "adam": keras.optimizers.Adam,
    "adamax": keras.optimizers.Adamax,
    "adamw": keras.optimizers.AdamW,
    "ftrl": keras.optimizers.Ftrl,
    "lamb": keras.optimizers.Lamb,
    "lion": keras.optimizers.Lion,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}

_AVERAGED: Final = "the optimizer's averaged weights are not those that a client sends"
# Arguments of Keras' classes that a scenario may not set, and why.
_RESERVED: Final[Mapping[str, str]] = {
    "learning_rate": "set training.learning_rate, the start of the schedule",
    "reduction": "local training always takes the mean over the rows of a batch",
    "name": "it has no effect",
    "dtype": "it follows the model",
    "axis": "model outputs have a single axis",
    "from_logits": "a model's outputs must be probabilities: end it with a sigmoid or softmax",
    "use_ema": _AVERAGED,
    "ema_momentum": _AVERAGED,
    "ema_overwrite_frequency": _AVERAGED,
    "gradient_accumulation_steps": "gradients do not accumulate over rounds: set training.batch_size",
}


def compile_checked(model: keras.Model, training: TrainingConfig, task: Task) -> None:
    """Compile a model; see `common.models.compile_model`."""
    _check_output(model, task)
    # XLA is off: it would recompile for every size of the last, smaller batch.
    model.compile(optimizer=_optimizer(training), loss=_loss(training, task), jit_compile=False)


def _check_output(model: keras.Model, task: Task) -> None:
    """Compare the output with the labels if the model has a known output shape (a subclass does not)."""
    shape = getattr(model, "output_shape", None)
    if shape is None:
        return
    outputs = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None
    fits = outputs is not None and outputs >= 3 if task == "multiclass" else outputs == 1
    if task == "multiclass" and outputs == 1:
        raise ModelError(
            "the task is multiclass, but the label has two classes, which are learnt with one sigmoid output",
            hint='remove data.task, or set it to "binary"',
        )
    if not fits:
        expected = "(None, classes) with 3 classes or more" if task == "multiclass" else "(None, 1)"
        raise ModelError(
            f"the model's output has shape {shape}; a {task} task needs {expected}",
            hint="end the model with Dense(1, sigmoid) for two classes, Dense(classes, softmax) for more, "
            "or Dense(1) for numbers",
        )


def _optimizer(training: TrainingConfig) -> keras.optimizers.Optimizer:
    kind = KERAS_OPTIMIZERS[training.optimizer]
    return _make(kind, training.optimizer_args, "optimizer", learning_rate=training.learning_rate)


def _loss(training: TrainingConfig, task: Task) -> keras.losses.Loss:
    problems = check_loss(training, task)
    if problems:
        raise ConfigError(problems)
    if is_users_own(training.loss):
        return _own_loss(training)
    name = USUAL_LOSS[task] if training.loss == "auto" else training.loss
    return _make(getattr(keras.losses, LOSSES[name].kind), training.loss_args, "loss")


class _FunctionLoss(keras.losses.Loss):
    """A function of the user's own, (labels, predictions) → loss of each row, (rows,)."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self._function, self._arguments = function, arguments

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        return self._function(y_true, y_pred, **self._arguments)


def _own_loss(training: TrainingConfig) -> keras.losses.Loss:
    found = load_object("training.loss", training.loss)
    if inspect.isclass(found) and issubclass(found, keras.losses.Loss):
        return _make(found, training.loss_args, "loss")
    if not inspect.isfunction(found):
        raise ConfigError(
            f'training.loss: "{training.loss}" is a {type(found).__name__}, expected a subclass of '
            "keras.losses.Loss, or a function (labels, predictions) -> loss of each row"
        )
    unknown = [name for name in training.loss_args if name not in inspect.signature(found).parameters]
    if unknown:
        raise ConfigError(f"training.loss_args: {found.__name__} takes no {', '.join(unknown)}")
    return _FunctionLoss(found, training.loss_args)


def _make(kind: type[Any], given: Mapping[str, Any], what: str, **ours: Any) -> Any:
    parameters = inspect.signature(kind.__init__).parameters
    known = [n for n in parameters if n not in ("self", "args", "kwargs", *_RESERVED)]
    problems = []
    for name in given:
        if name in _RESERVED:
            problems.append(f"training.{what}_args.{name}: {_RESERVED[name]}")
        elif name not in known:
            unknown = (
                errors.unknown_name(f"argument of {kind.__name__}", name, known)
                if known
                else f"{kind.__name__} takes no arguments, got {name}"
            )
            problems.append(f"training.{what}_args: {unknown}")
    if problems:
        raise ConfigError(problems)
    try:
        return kind(**given, **ours)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training.{what}_args: {kind.__name__} rejected them: {error}") from error
