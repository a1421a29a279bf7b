"""Calls the user's own function, `package.module:function` or given in Python, and checks what it returns.

Imports Keras.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import keras

from shoal.common import errors
from shoal.common.config import ModelConfig
from shoal.common.errors import ConfigError, ModelError
from shoal.common.models.catalog import PYTHON_PREFIX
from shoal.common.plugins import load_object
from shoal.common.schema import InputSpec


@runtime_checkable
class HoldsFunction(Protocol):
    """A model section that holds the function itself. Only simulations have one: no file can hold it."""

    @property
    def build_function(self) -> Callable[..., Any]:
        """Builds the model."""
        ...


def build_users_own(model: ModelConfig, spec: InputSpec, num_classes: int) -> keras.Model:
    """Build the user's model.

    Raises:
        ConfigError: the function cannot be loaded, or does not accept the arguments.
        ModelError: the function failed, or its model does not fit the input or the labels.
    """
    if isinstance(model, HoldsFunction):
        function = model.build_function
        wanted = _wanted(function, model)
    else:
        function, wanted = load_users_own(model.name), 2
    _check_arguments(function, model, wanted)
    try:
        built = function(*(spec, num_classes)[:wanted], **model.args)
    except Exception as error:
        raise ModelError(f"{model.name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(built, keras.Model):
        raise ModelError(f"{model.name} returned a {type(built).__name__}, expected a keras.Model")
    if built.compiled:
        raise ModelError(
            f"{model.name} returned a compiled model, whose optimizer, loss and metrics would not be used",
            hint="return it without compile; set training.optimizer, training.learning_rate, training.loss "
            "and training.metrics instead",
        )
    _check_output(built, spec, num_classes)
    return built


def load_users_own(name: str) -> Callable[..., Any]:
    """Return the function of that name, `package.module:function`.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if name.startswith(PYTHON_PREFIX):
        raise ConfigError(
            f'model.name: "{name}" stands for a model that was given to shoal.simulate as an object',
            hint="give it again: shoal.resume(run, model=…, data=…)",
        )
    found = load_object("model.name", name)
    if not callable(found):
        raise ConfigError(f'model.name: "{name}" is a {type(found).__name__}, expected a function')
    return found  # type: ignore[no-any-return]


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function, or of what a class is initialised with."""
    if not inspect.isclass(function):
        return list(inspect.signature(function).parameters.values())
    # The signature of a Keras class is that of its `__new__`, which takes anything.
    return list(inspect.signature(function.__init__).parameters.values())[1:]


def _wanted(function: Callable[..., Any], model: ModelConfig) -> int:
    """Return how many of (input_spec, num_classes) a given function takes: those it has no default for.

    Raises:
        ConfigError: it needs more than these.
    """
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in _parameters(function) if p.kind in positional and p.default is p.empty]
    needed = [name for name in names if name not in model.args]
    if len(needed) > 2:
        raise ConfigError(
            f"model: {model.name} needs {', '.join(needed)}; it is called with (input_spec, num_classes), "
            "and with what model.args holds"
        )
    return len(needed)


def _check_arguments(function: Callable[..., Any], model: ModelConfig, positional: int) -> None:
    parameters = _parameters(function)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters][positional:]
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
