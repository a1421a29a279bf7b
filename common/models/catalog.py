"""The table of built-in models by name, with their inputs and arguments. Does not import TensorFlow."""

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
_ALL_TASKS: Final[tuple[Task, ...]] = ("binary", "multiclass", "regression")


@dataclass(frozen=True, slots=True)
class ModelArgument:
    """An argument of a built-in model.

    Attributes:
        default: the default value, which also sets the type: a list of whole numbers above 0, one such
            number, a number in [0, below), true or false, or the name of an activation.
        below: exclusive upper limit.
    """

    default: tuple[int, ...] | int | float | bool | str
    below: float = math.inf

    def fits(self, value: object) -> bool:
        """Whether a value from a scenario is valid."""
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
        """Describe the valid values."""
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
        kinds: the kinds of input (`InputSpec.kind`) that it accepts.
        arguments: the arguments that a scenario can set.
        tasks: the tasks that it supports.
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
        "Convolution and pooling blocks, then Dense; filters (32, 64), kernel 5 and dense 512 give the "
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
        "Embedding, LSTM, Dense: reads all tokens in order, including padding.",
        ("tokens",),
        {"embedding": ModelArgument(32), "units": ModelArgument(128), "dropout": _DROPOUT},
    ),
    "pooled-text": ModelEntry(
        "Embedding, mean over the tokens without padding, Dense: fast.",
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
    """Whether a name is `package.module:function` rather than a built-in model."""
    return ":" in name


def check(model: ModelConfig) -> list[str]:
    """Return one line for each problem with a model's name and arguments; imports nothing heavy."""
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
    """Return all arguments of a built-in model, with defaults filled in."""
    defaults = {name: argument.default for name, argument in MODELS[model.name].arguments.items()}
    return {**defaults, **model.args}


def make_current_directory_importable() -> None:
    """Make modules in the current directory importable."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _check_users_own(name: str) -> list[str]:
    """Check the form of the name, and that the top-level package exists, without running its code."""
    module, _, function = name.partition(":")
    parts = [*module.split("."), function]
    if not all(part.isidentifier() for part in parts):
        return [f'model.name: expected package.module:function, got "{name}"']
    make_current_directory_importable()
    top = parts[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        return [f'model.name: "{name}": no package or module "{top}" in {Path.cwd()}, and none installed']
    return []
