"""The table of built-in models by name, with their inputs and arguments. Does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shoal.common import errors
from shoal.common.arguments import Argument, problems
from shoal.common.config import ModelConfig
from shoal.common.plugins import is_users_own, package_problems
from shoal.common.schema import Task

ACTIVATIONS: Final = (
    "celu", "elu", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "linear", "mish", "relu", "relu6",
    "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh",
)  # fmt: skip
PYTHON_PREFIX: Final = "python:"  # of the name of a model that is a Python object of a script or notebook
_ALL_TASKS: Final[tuple[Task, ...]] = ("binary", "multiclass", "regression")


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
    arguments: Mapping[str, Argument]
    tasks: tuple[Task, ...] = _ALL_TASKS


_FLAT: Final = ("vector", "image", "sequence")


def _size(default: int) -> Argument:
    return Argument(default, positive=True)


_DROPOUT: Final = Argument(0.0, below=1)
_L2: Final = Argument(0.0)

MODELS: Final[Mapping[str, ModelEntry]] = {
    "mlp": ModelEntry(
        "Dense layers with an activation, for tables; images and windows are flattened.",
        _FLAT,
        {
            "hidden": Argument((64, 32), positive=True),
            "activation": Argument("relu", choices=ACTIVATIONS),
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
        {"zero_start": Argument(True)},
        ("regression",),
    ),
    "cnn": ModelEntry(
        "Convolution and pooling blocks, then Dense; filters (32, 64), kernel 5 and dense 512 give the "
        "network of McMahan et al. (AISTATS 2017).",
        ("image",),
        {
            "filters": Argument((16, 32), positive=True),
            "kernel": _size(3),
            "dense": _size(64),
            "dropout": _DROPOUT,
        },
    ),
    "lstm-text": ModelEntry(
        "Embedding, LSTM, Dense: reads all tokens in order, including padding.",
        ("tokens",),
        {
            "embedding": _size(32),
            "units": _size(128),
            "dropout": _DROPOUT,
        },
    ),
    "pooled-text": ModelEntry(
        "Embedding, mean over the tokens without padding, Dense: fast.",
        ("tokens",),
        {"embedding": _size(32), "dense": _size(32), "dropout": _DROPOUT},
    ),
    "gru-sequence": ModelEntry(
        "GRU over the steps of a sensor window, then Dense.",
        ("sequence",),
        {"units": _size(32), "dense": _size(32), "dropout": _DROPOUT},
    ),
}


def check(model: ModelConfig) -> list[str]:
    """Return what is wrong with a model's name and arguments, one line each; imports nothing heavy."""
    if model.name.startswith(PYTHON_PREFIX):
        return []
    if is_users_own(model.name):
        return package_problems("model.name", model.name)
    entry = MODELS.get(model.name)
    if entry is None:
        unknown = errors.unknown_name("model", model.name, MODELS)
        return [f"model.name: {unknown}, or package.module:function"]
    return list(problems("model.args", model.name, model.args, entry.arguments))


def arguments(model: ModelConfig) -> dict[str, Any]:
    """Return all arguments of a built-in model, with defaults filled in."""
    defaults = {name: argument.default for name, argument in MODELS[model.name].arguments.items()}
    return {**defaults, **model.args}
