"""Builds models from their names; imports Keras."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
from keras import layers

from common.config import ModelConfig
from common.errors import ConfigError, ModelError
from common.models.catalog import MODELS, arguments, check, is_users_own
from common.schema import InputSpec
from common.seeds import integer_seed

Body = Callable[..., Any]


def build_model(model: ModelConfig, spec: InputSpec, num_classes: int, *, seed: int) -> keras.Model:
    """Build a model; see `common.models.build`."""
    problems = check(model)
    if problems:
        raise ConfigError(problems)
    keras.utils.set_random_seed(integer_seed(seed, "weights"))
    if is_users_own(model.name):
        return _users_model(model, spec, num_classes)
    entry = MODELS[model.name]
    if spec.kind not in entry.kinds:
        raise ModelError(
            f'model "{model.name}" takes {" or ".join(entry.kinds)} inputs, but the data gives '
            f"{spec.kind} inputs of shape {spec.shape}",
            hint=f"models for it: {', '.join(n for n, e in MODELS.items() if spec.kind in e.kinds)}",
        )
    inputs = keras.Input(spec.shape, dtype=spec.dtype)
    given = arguments(model)
    features = _BODIES[model.name](inputs, spec, given)
    return keras.Model(inputs, _head(features, num_classes, given), name=model.name.replace("-", "_"))


def _head(features: Any, num_classes: int, given: dict[str, Any]) -> Any:
    options: dict[str, Any] = {"name": "output"}
    if given.get("l2"):
        options["kernel_regularizer"] = keras.regularizers.L2(given["l2"])
    if given.get("zero_start"):
        options["kernel_initializer"] = "zeros"
    if num_classes == 0:
        return layers.Dense(1, **options)(features)
    if num_classes == 2:
        return layers.Dense(1, activation="sigmoid", **options)(features)
    return layers.Dense(num_classes, activation="softmax", **options)(features)


def _mlp(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    x = inputs
    regularizer = keras.regularizers.L2(given["l2"]) if given["l2"] else None
    for units in given["hidden"]:
        x = layers.Dense(units, activation=given["activation"], kernel_regularizer=regularizer)(x)
        x = _dropout(x, given)
    return x


def _identity(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    return inputs


def _cnn(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    x = inputs
    for filters in given["filters"]:
        x = layers.Conv2D(filters, given["kernel"], padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(given["dense"], activation="relu")(layers.Flatten()(x))
    return _dropout(x, given)


def _lstm_text(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    return layers.LSTM(given["units"])(layers.Embedding(spec.vocabulary_size, given["embedding"])(inputs))


def _pooled_text(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    embedded = layers.Embedding(spec.vocabulary_size, given["embedding"])(inputs)
    # Padding (id 0) is left out of the mean; a text without any token gets zeros.
    present = keras.ops.cast(keras.ops.expand_dims(keras.ops.not_equal(inputs, 0), -1), "float32")
    count = keras.ops.maximum(keras.ops.sum(present, axis=1), 1.0)
    mean = keras.ops.sum(embedded * present, axis=1) / count
    return _dropout(layers.Dense(given["dense"], activation="relu")(mean), given)


def _gru_sequence(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    x = layers.Dense(given["dense"], activation="relu")(layers.GRU(given["units"])(inputs))
    return _dropout(x, given)


def _dropout(x: Any, given: dict[str, Any]) -> Any:
    return layers.Dropout(given["dropout"])(x) if given["dropout"] else x


_BODIES: Final[dict[str, Body]] = {
    "mlp": _mlp,
    "logistic": _identity,
    "linear": _identity,
    "cnn": _cnn,
    "lstm-text": _lstm_text,
    "pooled-text": _pooled_text,
    "gru-sequence": _gru_sequence,
}


def _users_model(model: ModelConfig, spec: InputSpec, num_classes: int) -> keras.Model:
    module, _, name = model.name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f'model.name: "{model.name}" cannot be loaded: {error}',
            hint="it is looked up from the folder where shoal was started",
        ) from error
    try:
        built = function(spec, num_classes, **model.args)
    except Exception as error:
        raise ModelError(f"{model.name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(built, keras.Model):
        raise ModelError(f"{model.name} returned a {type(built).__name__}, expected a keras.Model")
    _check_output(built, spec, num_classes)
    return built


def _check_output(model: keras.Model, spec: InputSpec, num_classes: int) -> None:
    outputs = num_classes if num_classes > 2 else 1
    try:
        found = model(keras.ops.zeros((1, *spec.shape), spec.dtype))  # also builds a subclass's weights
    except Exception as error:
        raise ModelError(
            f"the model does not take inputs of shape {spec.shape} and type {spec.dtype}: "
            f"{type(error).__name__}: {error}"
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if shape != (1, outputs):
        raise ModelError(
            f"for one row the model's output has shape {shape}; labels "
            f"{f'of {num_classes} classes' if num_classes else 'that are numbers'} need (1, {outputs})",
            hint="end it with Dense(1, sigmoid) for two classes, Dense(classes, softmax) for more, "
            "Dense(1) for numbers",
        )
