"""Builds models from their names; imports Keras."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import keras
import numpy as np
from keras import layers

from shoal.common.config import ModelConfig
from shoal.common.errors import ConfigError, ModelError
from shoal.common.models.catalog import MODELS, arguments, check
from shoal.common.models.users_own import build_users_own
from shoal.common.plugins import is_users_own
from shoal.common.schema import InputSpec, Task
from shoal.common.seeds import integer_seed

Body = Callable[[Any, InputSpec, dict[str, Any]], Any]


def build_model(model: ModelConfig, spec: InputSpec, num_classes: int, *, seed: int) -> keras.Model:
    """Build a model; see `common.models.build`."""
    problems = check(model)
    if problems:
        raise ConfigError(problems)
    if num_classes == 1 or num_classes < 0:
        raise ModelError(f"expected at least 2 classes, or 0 for regression, got {num_classes}")
    with _seeded(integer_seed(seed, "weights")), _policy(model.precision):
        if is_users_own(model.name):
            return build_users_own(model, spec, num_classes)
        return _built_in(model, spec, num_classes)


def _built_in(model: ModelConfig, spec: InputSpec, num_classes: int) -> keras.Model:
    _check_fits(model.name, spec, num_classes)
    inputs = keras.Input(spec.shape, dtype=spec.dtype, name="input")
    given = arguments(model)
    features = _BODIES[model.name](inputs, spec, given)
    return keras.Model(inputs, _head(features, num_classes, given), name=model.name.replace("-", "_"))


def _check_fits(name: str, spec: InputSpec, num_classes: int) -> None:
    entry = MODELS[name]
    task: Task = {0: "regression", 2: "binary"}.get(num_classes, "multiclass")  # type: ignore[assignment]
    fitting = [n for n, e in MODELS.items() if spec.kind in e.kinds and task in e.tasks]
    hint = f"models for {task} of {spec.kind} inputs: {', '.join(fitting)}"
    if spec.kind not in entry.kinds:
        raise ModelError(
            f'model "{name}" needs {" or ".join(entry.kinds)} inputs, but the data has {spec.kind} '
            f"inputs of shape {spec.shape}",
            hint=hint,
        )
    if task not in entry.tasks:
        raise ModelError(
            f'model "{name}" supports {" and ".join(entry.tasks)} tasks, but the task is {task}', hint=hint
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Keras' weight initialisation, and restore the global state of Python and numpy afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _policy(precision: str) -> Iterator[None]:
    """Set the dtype policy of layers that are built in this context."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _head(features: Any, num_classes: int, given: dict[str, Any]) -> Any:
    # Probabilities and losses need 32 bits, whatever precision the layers before use.
    options: dict[str, Any] = {"name": "output", "dtype": "float32"}
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
    x = _flat(inputs, spec, given)
    for units in given["hidden"]:
        # One regularizer per layer: Keras objects are not meant to be shared.
        l2 = keras.regularizers.L2(given["l2"]) if given["l2"] else None
        x = layers.Dense(units, activation=given["activation"], kernel_regularizer=l2)(x)
        x = _dropout(x, given)
    return x


def _flat(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    return layers.Flatten()(inputs) if len(spec.shape) > 1 else inputs


def _cnn(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    blocks = len(given["filters"])
    if min(spec.shape[:2]) < 2**blocks:
        raise ModelError(
            f"{blocks} blocks each halve the image, which needs at least {2**blocks} pixels a side; "
            f"the images have {spec.shape[0]} x {spec.shape[1]}",
            hint="set fewer entries in model.args.filters",
        )
    x = inputs
    for filters in given["filters"]:
        x = layers.Conv2D(filters, given["kernel"], padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(given["dense"], activation="relu")(layers.Flatten()(x))
    return _dropout(x, given)


def _lstm_text(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    embedded = layers.Embedding(spec.vocabulary_size, given["embedding"])(inputs)
    return _dropout(layers.LSTM(given["units"])(embedded), given)


def _pooled_text(inputs: Any, spec: InputSpec, given: dict[str, Any]) -> Any:
    embedded = layers.Embedding(spec.vocabulary_size, given["embedding"])(inputs)
    # Padding (id 0) is excluded from the mean. A text without any token gets zeros; Keras' own masked
    # pooling would divide by zero.
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
    "logistic": _flat,
    "linear": _flat,
    "cnn": _cnn,
    "lstm-text": _lstm_text,
    "pooled-text": _pooled_text,
    "gru-sequence": _gru_sequence,
}
