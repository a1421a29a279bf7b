"""The built-in models by name: what they take and which arguments they have. Free of TensorFlow."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shoal.common import errors
from shoal.common.config import ModelConfig
from shoal.common.schema import Task

ACTIVATIONS: Final = (
    "celu", "elu", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "linear", "mish", "relu", "relu6",
    "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh",
)  # fmt: skip
PYTHON_PREFIX: Final = "python:"  # of the name of a model that is a Python object of a script or notebook
_ALL_TASKS: Final[tuple[Task, ...]] = ("binary", "multiclass", "regression")


@dataclass(frozen=True, slots=True)
class ModelArgument:
    """An argument of a built-in model.

    Attributes:
        default: its type is the argument's: a list of whole numbers above 0, one such number, a number
            in [0, below), true or false, or the name of an activation.
        below: smallest number that is too large.
    """

    default: tuple[int, ...] | int | float | bool | str
    below: float = math.inf

    def fits(self, value: object) -> bool:
        """Tell whether a value from a scenario may be given."""
        match self.default:
            case bool():
                return isinstance(value, bool)
            case tuple():
                return isinstance(value, list | tuple) and all(_above_0(v) for v in value)
            case int():
                return _above_0(value)
            case float():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                return number and 0 <= value < self.below  # type: ignore[operator]
            case _:
                return value in ACTIVATIONS

    def wanted(self) -> str:
        """Say which values fit."""
        match self.default:
            case bool():
                return "true or false"
            case tuple():
                return "a list of whole numbers above 0"
            case int():
                return "a whole number above 0"
            case float():
                top = "" if math.isinf(self.below) else f" and below {self.below:g}"
                return f"a number of at least 0{top}"
            case _:
                return f"one of {', '.join(ACTIVATIONS)}"


def _above_0(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A built-in model.

    Attributes:
        summary: one line for lists and docs.
        kinds: the `InputSpec.kind`s that it takes.
        arguments: what a scenario may set.
        tasks: what it can learn.
    """

    summary: str
    kinds: tuple[str, ...]
    arguments: Mapping[str, ModelArgument]
    tasks: tuple[Task, ...] = _ALL_TASKS


_FLAT: Final = ("vector", "image", "sequence")
_DROPOUT: Final = ModelArgument(0.0, below=1)
_L2: Final = ModelArgument(0.0)

MODELS: Final[Mapping[str, ModelEntry]] = {
    "mlp": ModelEntry(
        "Dense layers with an activation, for tables; images and windows are flattened.",
        _FLAT,
        {
            "hidden": ModelArgument((64, 32)),
            "activation": ModelArgument("relu"),
            "dropout": _DROPOUT,
            "l2": _L2,
        },
    ),
    "logistic": ModelEntry(
        "One Dense layer: logistic or softmax regression.", _FLAT, {"l2": _L2}, ("binary", "multiclass")
    ),
    "linear": ModelEntry(
        "One Dense unit without activation: linear regression.",
        ("vector",),
        {"zero_start": ModelArgument(True)},
        ("regression",),
    ),
    "cnn": ModelEntry(
        "Convolution and pooling blocks, then Dense; with filters (32, 64), kernel 5 and dense 512 the "
        "network of McMahan et al. (AISTATS 2017).",
        ("image",),
        {
            "filters": ModelArgument((16, 32)),
            "kernel": ModelArgument(3),
            "dense": ModelArgument(64),
            "dropout": _DROPOUT,
        },
    ),
    "lstm-text": ModelEntry(
        "Embedding, LSTM, Dense: reads tokens in order, padding included.",
        ("tokens",),
        {"embedding": ModelArgument(32), "units": ModelArgument(128), "dropout": _DROPOUT},
    ),
    "pooled-text": ModelEntry(
        "Embedding, mean over the tokens that are there, Dense: fast.",
        ("tokens",),
        {"embedding": ModelArgument(32), "dense": ModelArgument(32), "dropout": _DROPOUT},
    ),
    "gru-sequence": ModelEntry(
        "GRU over the steps of a sensor window, then Dense.",
        ("sequence",),
        {"units": ModelArgument(32), "dense": ModelArgument(32), "dropout": _DROPOUT},
    ),
}


def is_users_own(name: str) -> bool:
    """Tell whether a name is `package.module:function` rather than a built-in one."""
    return ":" in name


def check(model: ModelConfig) -> list[str]:
    """Return what is wrong with a model's name and arguments, one line each; imports nothing heavy."""
    if model.name.startswith(PYTHON_PREFIX):
        return []
    if is_users_own(model.name):
        return _check_users_own(model.name)
    entry = MODELS.get(model.name)
    if entry is None:
        unknown = errors.unknown_name("model", model.name, MODELS)
        return [f"model.name: {unknown}, or package.module:function"]
    problems = []
    for name, value in model.args.items():
        if name not in entry.arguments:
            what = errors.unknown_name(f"argument of {model.name}", name, entry.arguments)
            problems.append(f"model.args: {what}")
        elif not entry.arguments[name].fits(value):
            problems.append(f"model.args.{name}: expected {entry.arguments[name].wanted()}, got {value!r}")
    return problems


def arguments(model: ModelConfig) -> dict[str, Any]:
    """Return all arguments of a built-in model, defaults filled in."""
    defaults = {name: argument.default for name, argument in MODELS[model.name].arguments.items()}
    return {**defaults, **model.args}


def look_up_here() -> None:
    """Let modules be imported from the folder where shoal was started."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _check_users_own(name: str) -> list[str]:
    """Check the form and that the top package is there, without running any of its code."""
    module, _, function = name.partition(":")
    parts = [*module.split("."), function]
    if not all(part.isidentifier() for part in parts):
        return [f'model.name: "{name}" is not of the form package.module:function']
    look_up_here()
    top = parts[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        return [f'model.name: "{name}": there is no package or module "{top}" in {Path.cwd()} or installed']
    return []
