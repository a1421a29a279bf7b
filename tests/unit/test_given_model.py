"""Models given as Python objects: what builds them elsewhere, and how their compile is read."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.common.config import ModelConfig, TrainingConfig
from shoal.common.errors import ConfigError, ModelError
from shoal.common.keras_loading import load_keras
from shoal.common.models import build
from shoal.common.schema import InputSpec
from shoal.simulations.given_model import take_model
from shoal.simulations.portable_model import GivenModelConfig, model_identity

load_keras()
import keras  # noqa: E402

SPEC = InputSpec("vector", (3,))


def network(**compiled: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")], name="net")
    if compiled:
        model.compile(**compiled)
    return model


def built(model: object, **args: object) -> keras.Model:
    given = take_model(model)
    assert given.builder is not None
    config = GivenModelConfig.of(ModelConfig(name=given.name, args=args), given.builder)
    return build(pickle.loads(pickle.dumps(config)), SPEC, 2, seed=1)


def two(spec: InputSpec, classes: int, units: int = 4) -> keras.Model:
    layers = [keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input(spec.shape), *layers])


class Subclass(keras.Model):
    def __init__(self, units: int = 2) -> None:
        super().__init__()
        self.hidden, self.out = keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs: Any) -> Any:
        return self.out(self.hidden(inputs))


def test_a_function_is_called_with_what_it_has_parameters_for() -> None:
    assert built(two).count_params() == 3 * 4 + 4 + 4 + 1
    assert built(two, units=5).count_params() == 3 * 5 + 5 + 5 + 1
    assert built(lambda spec: two(spec, 2)).count_params() == 21
    assert built(lambda: network()).count_params() == 4
    assert built(Subclass, units=3).count_params() == 3 * 3 + 3 + 3 + 1
    with pytest.raises(ConfigError, match=r"needs a, b, c; it is called with \(input_spec, num_classes\)"):
        built(lambda a, b, c: None)
    with pytest.raises(ConfigError, match=r'unknown argument of python:two "unit"\. Did you mean "units"'):
        built(two, unit=5)


def test_a_function_that_cannot_be_imported_reaches_another_process(tmp_path: Path) -> None:
    scale = 7

    def local(spec: InputSpec, classes: int) -> keras.Model:
        return two(spec, classes, units=scale)  # both from here: the process below has no such module

    builder = take_model(local).builder
    (tmp_path / "builder").write_bytes(pickle.dumps(builder))
    program = (
        "import pickle, sys\nfrom shoal.common.schema import InputSpec\n"
        "made = pickle.load(open(sys.argv[1], 'rb')).function(InputSpec('vector', (3,)), 2)\n"
        "print(made.count_params())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "builder")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(3 * 7 + 7 + 7 + 1)


def test_the_weights_of_a_keras_model_are_the_initial_ones_whatever_the_seed() -> None:
    model = network()
    weights = [np.array([[1], [2], [3]], np.float32), np.array([4], np.float32)]
    model.set_weights(weights)
    found = built(model)
    assert found is not model
    assert all(np.array_equal(a, b) for a, b in zip(found.get_weights(), weights, strict=True))


def test_what_cannot_be_a_model_is_refused() -> None:
    for wrong, told in [
        (7, "int is not a model"),
        (Subclass(), "has no weights yet"),
        (keras.Sequential([keras.layers.Dense(1)]), "has no weights yet"),
    ]:
        with pytest.raises(ModelError, match=told):
            take_model(wrong)
    unsaved = Subclass()
    unsaved(np.zeros((1, 3)))
    with pytest.raises(ModelError, match="pass the function or class that builds it instead"):
        take_model(unsaved)
    stream = (line for line in ())
    with pytest.raises(ModelError, match="cannot be sent to worker processes"):
        take_model(lambda: stream)


@pytest.mark.parametrize(("compiled", "expected"), [
    (
        {"optimizer": keras.optimizers.SGD(0.05, momentum=0.9), "loss": "binary_crossentropy",
         "metrics": ["acc"]},
        {"optimizer": "sgd", "learning_rate": 0.05, "optimizer_args": {"momentum": 0.9},
         "loss": "binary_crossentropy", "metrics": ["accuracy"]},
    ),
    (
        {"optimizer": "adam", "loss": keras.losses.BinaryCrossentropy(label_smoothing=0.1),
         "metrics": [keras.metrics.AUC(), "accuracy"]},
        {"optimizer": "adam", "learning_rate": 0.001, "optimizer_args": {}, "loss": "binary_crossentropy",
         "loss_args": {"label_smoothing": 0.1}, "metrics": ["auc", "accuracy"]},
    ),
    (
        {"optimizer": "adam", "loss": keras.losses.Huber(delta=2.0)},
        {"optimizer": "adam", "learning_rate": 0.001, "optimizer_args": {}, "loss": "huber",
         "loss_args": {"delta": 2.0}},
    ),
    (
        {"optimizer": "adam", "loss": keras.losses.mean_squared_error},
        {"optimizer": "adam", "learning_rate": 0.001, "optimizer_args": {}, "loss": "mean_squared_error"},
    ),
    ({"optimizer": "adam", "loss": "MeanSquaredError"},
     {"optimizer": "adam", "learning_rate": 0.001, "optimizer_args": {}, "loss": "mean_squared_error"}),
    ({}, {}),
])  # fmt: skip
def test_compile_becomes_keys_of_the_scenario(compiled: dict[str, Any], expected: dict[str, Any]) -> None:
    training = take_model(network(**compiled)).training
    assert training == expected
    TrainingConfig(**training)


@pytest.mark.parametrize(("compiled", "told"), [
    ({"optimizer": "adam", "loss": lambda y, p: y - p}, 'unknown loss "<lambda>"'),
    ({"optimizer": "adam", "loss": keras.losses.BinaryCrossentropy(from_logits=True)}, "from_logits"),
    ({"optimizer": "adam", "loss": keras.losses.MeanSquaredError(reduction="sum")}, 'reduction "sum"'),
    ({"optimizer": "adam", "loss": "mse", "metrics": ["cosine_similarity"]}, "unknown metric"),
    ({"optimizer": "adam", "loss": "mse", "loss_weights": [2.0]}, "loss_weights"),
    ({"optimizer": keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "loss": "mse"},
     "schedule of learning rates"),
])  # fmt: skip
def test_what_cannot_be_kept_of_compile_is_refused(compiled: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        take_model(network(**compiled))


def test_a_model_is_the_same_only_if_code_and_arguments_are() -> None:
    def config(function: object, **args: object) -> GivenModelConfig:
        given = take_model(function)
        assert given.builder is not None
        return GivenModelConfig.of(ModelConfig(name="python:f", args=args), given.builder)

    def with_units(units: int) -> Any:
        return lambda spec, classes: two(spec, classes, units)

    assert model_identity(config(with_units(3))) == model_identity(config(with_units(3)))
    assert model_identity(config(with_units(3))) != model_identity(config(with_units(4)))
    assert model_identity(config(two)) != model_identity(config(two, units=5))
    assert model_identity(ModelConfig(name="mlp")) == model_identity(ModelConfig(name="mlp"))


def test_a_config_that_is_read_back_names_the_object_but_does_not_have_it() -> None:
    with pytest.raises(ConfigError, match=r"python:two.*was given to shoal\.simulate") as caught:
        build(ModelConfig(name="python:two"), SPEC, 2, seed=1)
    assert "shoal.resume(run, model=…, data=…)" in str(caught.value)
