"""Calls the user's own `package.module:function` and checks what it returns; imports Keras."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import keras

from shoal.common import errors
from shoal.common.config import ModelConfig
from shoal.common.errors import ConfigError, ModelError
from shoal.common.models.catalog import make_current_directory_importable
from shoal.common.schema import InputSpec


def build_users_own(model: ModelConfig, spec: InputSpec, num_classes: int) -> keras.Model:
    """Build the user's model.

    Raises:
        ConfigError: the function cannot be loaded, or does not accept the arguments.
        ModelError: the function failed, or its model does not fit the input or the labels.
    """
    function = load_users_own(model.name)
    _check_arguments(function, model)
    try:
        built = function(spec, num_classes, **model.args)
    except Exception as error:
        raise ModelError(f"{model.name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(built, keras.Model):
        raise ModelError(f"{model.name} returned a {type(built).__name__}, expected a keras.Model")
    _check_output(built, spec, num_classes)
    return built


def load_users_own(name: str) -> Callable[..., Any]:
    """Return the function of that name, `package.module:function`.

    Raises:
        ConfigError: it cannot be loaded.
    """
    module, _, attribute = name.partition(":")
    make_current_directory_importable()
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's own may raise anything
        raise ConfigError(
            f'model.name: "{name}" cannot be loaded: {type(error).__name__}: {error}',
            hint="modules are imported from the current directory and from installed packages",
        ) from error
    if not callable(found):
        raise ConfigError(f'model.name: "{name}" is a {type(found).__name__}, expected a function')
    return found  # type: ignore[no-any-return]


def _check_arguments(function: Callable[..., Any], model: ModelConfig) -> None:
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    known = list(parameters)[2:]  # the first two are input_spec and num_classes
    what = f"argument of {model.name}"
    unknown = [name for name in model.args if name not in known]
    if unknown:
        raise ConfigError([f"model.args: {errors.unknown_name(what, name, known)}" for name in unknown])


def _check_output(model: keras.Model, spec: InputSpec, num_classes: int) -> None:
    outputs = num_classes if num_classes > 2 else 1
    try:
        found = model(keras.ops.zeros((1, *spec.shape), spec.dtype))  # also builds a subclass's weights
    except Exception as error:
        raise ModelError(
            f"the model does not accept inputs of shape {spec.shape} and dtype {spec.dtype}: "
            f"{type(error).__name__}: {error}"
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if shape != (1, outputs):
        raise ModelError(
            f"for one row the model's output has shape {shape}; labels "
            f"{f'of {num_classes} classes' if num_classes else 'that are numbers'} need (1, {outputs})",
            hint="end the model with Dense(1, sigmoid) for two classes, Dense(classes, softmax) for more, "
            "or Dense(1) for numbers",
        )
