"""The built-in models by name: what they take and which arguments they have. Free of TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from common import errors
from common.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Entry:
    """A built-in model.

    Attributes:
        summary: one line for lists and docs.
        kinds: the `InputSpec.kind`s that it takes.
        arguments: name → default; values given must be of the default's type.
    """

    summary: str
    kinds: tuple[str, ...]
    arguments: Mapping[str, Any]


MODELS: Final[Mapping[str, Entry]] = {
    "mlp": Entry(
        "Dense layers with an activation, for tables.",
        ("vector",),
        {"hidden": (64, 32), "activation": "relu", "dropout": 0.0, "l2": 0.0},
    ),
    "logistic": Entry("One Dense layer: logistic or softmax regression.", ("vector",), {"l2": 0.0}),
    "linear": Entry(
        "One Dense unit without activation: linear regression.", ("vector",), {"zero_start": True}
    ),
    "cnn": Entry(
        "Convolution and pooling blocks, then Dense; with filters (32, 64), kernel 5 and dense 512 the "
        "network of McMahan et al. (AISTATS 2017).",
        ("image",),
        {"filters": (16, 32), "kernel": 3, "dense": 64, "dropout": 0.0},
    ),
    "lstm-text": Entry(
        "Embedding, LSTM, Dense: reads tokens in order.", ("tokens",), {"embedding": 32, "units": 128}
    ),
    "pooled-text": Entry(
        "Embedding, mean over the tokens that are there, Dense: fast.",
        ("tokens",),
        {"embedding": 32, "dense": 32, "dropout": 0.0},
    ),
    "gru-sequence": Entry(
        "GRU over the steps of a sensor window, then Dense.",
        ("sequence",),
        {"units": 32, "dense": 32, "dropout": 0.0},
    ),
}


def is_users_own(name: str) -> bool:
    """Tell whether a name is `package.module:function` rather than a built-in one."""
    return ":" in name


def check(model: ModelConfig) -> list[str]:
    """Return what is wrong with a model's name and arguments, one line each; imports nothing."""
    if is_users_own(model.name):
        return []
    entry = MODELS.get(model.name)
    if entry is None:
        return [f"model.name: {errors.unknown_name('model', model.name, MODELS)}"]
    problems = []
    for name, value in model.args.items():
        if name not in entry.arguments:
            what = errors.unknown_name(f"argument of {model.name}", name, entry.arguments)
            problems.append(f"model.args: {what}")
        elif not _fits(value, entry.arguments[name]):
            wanted = _kind(entry.arguments[name])
            problems.append(f"model.args.{name}: expected {wanted}, got {value!r}")
    return problems


def arguments(model: ModelConfig) -> dict[str, Any]:
    """Return all arguments of a built-in model, defaults filled in."""
    entry = MODELS[model.name]
    return {**entry.arguments, **model.args}


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_fits(v, default[0]) and v > 0 for v in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool) and value > 0
    return isinstance(value, str)


def _kind(default: Any) -> str:
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, tuple):
        return "a list of whole numbers above 0"
    if isinstance(default, float):
        return "a number of at least 0"
    return "a whole number above 0" if isinstance(default, int) else "a text"
