"""Reads how a Keras model is compiled as keys of the training section; imports Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import keras
import numpy as np

from shoal.common.errors import ModelError, unknown_name
from shoal.common.models.compiling import KERAS_OPTIMIZERS
from shoal.common.models.losses import LOSSES

_HINT: Final = (
    "compile it with a loss, an optimizer and metrics that docs/config.md lists under [training], or leave "
    "it uncompiled and set these keys"
)
_METRICS: Final[Mapping[str, str]] = {
    "acc": "accuracy",
    "accuracy": "accuracy",
    "auc": "auc",
    "binary_accuracy": "accuracy",
    "binaryaccuracy": "accuracy",
    "f1score": "f1",
    "f1_score": "f1",
    "mae": "mae",
    "mean_absolute_error": "mae",
    "meanabsoluteerror": "mae",
    "mean_squared_error": "mse",
    "meansquarederror": "mse",
    "mse": "mse",
    "sparse_categorical_accuracy": "accuracy",
    "sparsecategoricalaccuracy": "accuracy",
}


def training_keys(model: keras.Model) -> dict[str, Any]:
    """Return the keys of the training section that a model's `compile` sets; none if it is not compiled.

    Raises:
        ModelError: federated training cannot do what it says.
    """
    if not model.compiled:
        return {}
    given = model.get_compile_config() or {}
    for key in ("loss_weights", "weighted_metrics"):
        if given.get(key):
            raise ModelError(f"model: it is compiled with {key}, which has no meaning here", hint=_HINT)
    keys = {**_optimizer_keys(model.optimizer), **_loss_keys(model.loss)}
    if metrics := _metric_names(given.get("metrics") or ()):
        keys["metrics"] = metrics
    return keys


def _optimizer_keys(optimizer: Any) -> dict[str, Any]:
    names = {kind: name for name, kind in KERAS_OPTIMIZERS.items()}
    kind = type(optimizer)
    if kind not in names:
        unknown = unknown_name("optimizer", kind.__name__, KERAS_OPTIMIZERS)
        raise ModelError(f"model: it is compiled with an {unknown}", hint=_HINT)
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        raise ModelError(
            "model: its optimizer has a schedule of learning rates, which would begin anew at every client "
            "in every round",
            hint="compile it with a number, and set training.schedule, which goes by rounds",
        )
    config = optimizer.get_config()
    given = _changed(config, kind().get_config(), ("name", "learning_rate"), "optimizer")
    # The shortest number that is the same in 32 bits: 0.001, not 0.0010000000474974513.
    rate = float(str(np.float32(config["learning_rate"])))
    return {"optimizer": names[kind], "learning_rate": rate, "optimizer_args": given}


def _loss_keys(loss: Any) -> dict[str, Any]:
    if loss is None:
        return {}
    kinds = {entry.kind: name for name, entry in reversed(list(LOSSES.items()))}
    name: str | None = None
    if isinstance(loss, keras.losses.Loss):
        name = kinds.get(type(loss).__name__)
        if name is not None and type(loss) is getattr(keras.losses, LOSSES[name].kind):
            return {"loss": name, "loss_args": _loss_args(loss)}
    elif callable(loss):
        name = getattr(loss, "__name__", "")
        if name in LOSSES and loss is getattr(keras.losses, name, None):
            return {"loss": name}
    elif isinstance(loss, str):
        name = loss.lower() if loss.lower() in LOSSES else kinds.get(loss)
        if name is not None:
            return {"loss": name}
    shown = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    raise ModelError(f"model: it is compiled with an {unknown_name('loss', shown, LOSSES)}", hint=_HINT)


def _loss_args(loss: keras.losses.Loss) -> dict[str, Any]:
    if loss.reduction != "sum_over_batch_size":
        raise ModelError(
            f'model: its loss has the reduction "{loss.reduction}"; training takes the mean over a batch'
        )
    # The config of a Keras loss lacks its arguments: delta of Huber, for one.
    given = _changed(loss._fn_kwargs, type(loss)()._fn_kwargs, (), "loss")
    if given.pop("from_logits", False):
        raise ModelError(
            "model: its loss has from_logits = True, but metrics and predictions need probabilities",
            hint="end the model with a sigmoid or softmax, and drop from_logits",
        )
    return given


def _changed(
    config: Mapping[str, Any], usual: Mapping[str, Any], apart: tuple[str, ...], what: str
) -> dict[str, Any]:
    """Return the entries of a Keras config that differ from the usual ones."""
    found = {k: v for k, v in config.items() if k not in apart and v != usual.get(k)}
    for key, value in found.items():
        if not isinstance(value, bool | int | float | str):
            raise ModelError(f"model: {key} of its {what} cannot be written into a scenario", hint=_HINT)
    return found


def _metric_names(metrics: Any) -> list[str]:
    found = []
    for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
        name = metric.get("class_name", "?") if isinstance(metric, Mapping) else str(metric)
        if name.lower() not in _METRICS:
            unknown = unknown_name("metric", name, set(_METRICS.values()))
            raise ModelError(f"model: it is compiled with an {unknown}", hint=_HINT)
        found.append(_METRICS[name.lower()])
    return list(dict.fromkeys(found))
