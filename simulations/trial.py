"""Tries out a user's own model before the first round: one step, export, reload, and a prediction.

What fails here would fail after hours of training otherwise. It takes no rows: only numbers of the right
shapes. Built-in models need no trial.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, ModelError, ShoalError
from shoal.common.keras_loading import load_keras
from shoal.common.models import build, compile_model
from shoal.common.models.catalog import PYTHON_PREFIX
from shoal.common.plugins import is_users_own, load_object
from shoal.common.preprocessing import PreprocessingSpec
from shoal.common.schema import InputSpec, Schema

if TYPE_CHECKING:
    import keras

_ROWS: Final = 8
_MOST_TEXT: Final = 300  # characters of an error of Keras, which may quote whole classes
_TOLERANCE: Final = 1e-4  # of probabilities; a model that lost a layer's weights is off by far more
_SAVING: Final = (
    "give your classes get_config, and register them with keras.saving.register_keras_serializable; or build "
    "the model from Keras' own layers: https://keras.io/guides/serialization_and_saving"
)


def try_out(scenario: Scenario, schema: Schema, spec: PreprocessingSpec) -> None:
    """Try a user's own model and loss out as a run would use them; built-in ones pass.

    Args:
        scenario: for the model and its training; schema: for its labels; spec: the fitted preprocessing.

    Raises:
        ModelError: a step of training, saving, loading or predicting fails; the text says which.
    """
    name, loss = scenario.model.name, scenario.training.loss
    if not is_users_own(name) and not is_users_own(loss):
        return
    model = build(scenario.model, spec.input_spec, schema.num_classes, seed=scenario.seed)
    compile_model(model, scenario.training, schema.task)
    from shoal.clients.training.trainer import minimised_loss  # TensorFlow takes seconds to import
    from shoal.common.preprocessing.layers import with_preprocessing

    rows = _numbers(spec.input_spec)
    labels = np.arange(_ROWS) % max(1, schema.num_classes)
    if schema.num_classes:
        _require_probabilities(name, np.asarray(model(rows, training=False)))
    if is_users_own(loss):
        _try_loss(model, loss, rows, labels)
    with _stage(name, "a training step fails"):
        minimised_loss(model, (rows, labels))
    if not is_users_own(name):
        return
    with _stage(name, "the model cannot be exported", _SAVING), TemporaryDirectory(prefix="shoal-") as folder:
        whole = with_preprocessing(spec, model)
        path = Path(folder) / "model.keras"
        whole.save(path)
        loaded = load_saved(path, name)
        raw = {tensor.name: _raw_row(tensor) for tensor in whole.inputs}
        expected, found = (np.asarray(one(raw, training=False)) for one in (whole, loaded))
    if not np.allclose(expected, found, atol=_TOLERANCE, equal_nan=True):
        raise ModelError(
            f"{name}: saved and loaded again, the model predicts something else than before", hint=_SAVING
        )


def _try_loss(model: keras.Model, name: str, rows: NDArray[Any], labels: NDArray[Any]) -> None:
    """Require one finite loss for each row: batches have their mean, and tests and DP-SGD need each."""
    with _stage(name, "the loss fails"):
        found = np.asarray(model.loss.call(labels, model(rows, training=False)))
    if found.shape != (len(rows),) or not np.isfinite(found).all():
        raise ModelError(
            f"{name}: for {len(rows)} rows the loss returned an array of shape {found.shape}, expected "
            f"{len(rows)} finite numbers",
            hint="return the loss of each row, as the functions in keras.losses do; labels are class indices "
            "or targets, (rows,), and predictions (rows, outputs)",
        )


def load_saved(path: Path, name: str) -> keras.Model:
    """Load a saved model, with the classes of the module that built it and of the running script.

    Args:
        path: a `.keras` file; name: of the model in its scenario.
    """
    load_keras()
    import keras

    return keras.models.load_model(path, custom_objects=_own_classes(name), compile=False)


def _own_classes(name: str) -> dict[str, type]:
    """Return the layers and models of the running script and of the user's module, by name."""
    import keras

    modules = [sys.modules["__main__"]]
    if is_users_own(name) and not name.startswith(PYTHON_PREFIX):
        try:
            load_object("model.name", name)  # runs its registrations of classes too
            modules.append(sys.modules[name.partition(":")[0]])
        except ConfigError:
            pass  # loading says which class is missing
    return {
        kind.__name__: kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, keras.layers.Layer)
        and kind.__module__ == module.__name__
    }


def _numbers(spec: InputSpec) -> NDArray[Any]:
    """Return encoded rows, drawn at random."""
    rng = np.random.default_rng(0)
    if spec.kind == "tokens":
        return rng.integers(0, spec.vocabulary_size, (_ROWS, *spec.shape)).astype(spec.dtype)
    return rng.normal(size=(_ROWS, *spec.shape)).astype(spec.dtype)


def _raw_row(tensor: Any) -> Any:
    """Return one row of a raw input."""
    import tensorflow as tf

    shape = (1, *tensor.shape[1:])
    return tf.fill(shape, "") if tensor.dtype == "string" else tf.zeros(shape, tensor.dtype)


def _require_probabilities(name: str, found: NDArray[Any]) -> None:
    sums = found.sum(axis=1) if found.shape[1] > 1 else np.ones(1)
    # NaN fails neither test: a step of training reports it in words.
    if (found < -_TOLERANCE).any() or (found > 1 + _TOLERANCE).any() or (np.abs(sums - 1) > 1e-2).any():
        raise ModelError(
            f"{name}: the model's outputs are no probabilities: for random inputs they lie between "
            f"{found.min():.3g} and {found.max():.3g}",
            hint="end it with Dense(1, activation='sigmoid') for two classes, or "
            "Dense(classes, activation='softmax')",
        )


@contextmanager
def _stage(name: str, what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except ShoalError:
        raise
    except Exception as error:  # a user's class may raise anything
        text = shorten(" ".join(str(error).split()), _MOST_TEXT, placeholder="…")
        raise ModelError(f"{name}: {what}: {type(error).__name__}: {text}", hint=hint) from error
