"""The models as Keras builds them: outputs, initial weights, training, saving, and what is refused."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shoal.common.config import OPTIMIZERS, ModelConfig, TrainingConfig
from shoal.common.errors import ConfigError, ModelError
from shoal.common.models import LOSSES, MODELS, build, compile_model
from shoal.common.schema import InputSpec, Task

SPECS = {
    "vector": InputSpec("vector", (5,)),
    "tokens": InputSpec("tokens", (6,), vocabulary_size=20),
    "image": InputSpec("image", (8, 8, 1)),
    "sequence": InputSpec("sequence", (7, 3)),
}
CLASSES: dict[Task, int] = {"binary": 2, "multiclass": 4, "regression": 0}
EVERY = [(name, task) for name, entry in MODELS.items() for task in entry.tasks]
OWN = """
import keras

def build(input_spec, num_classes, units=3):
    return keras.Sequential([
        keras.Input(input_spec.shape),
        keras.layers.Dense(units),
        keras.layers.Dense(num_classes, activation="softmax"),
    ])

class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, activation="sigmoid")
    def call(self, x):
        return self.dense(x)

def subclass(input_spec, num_classes, **anything):
    return Subclass()

def fails(input_spec, num_classes):
    raise RuntimeError("out of ideas")

def nothing(input_spec, num_classes):
    return None

def other_input(input_spec, num_classes):
    return keras.Sequential([keras.Input((99,)), keras.layers.Dense(1)])

NUMBER = 3
"""


def made(
    name: str, task: Task = "binary", seed: int = 1, kind: str | None = None, **args: Any
) -> keras.Model:
    kind = kind or MODELS[name].kinds[0]
    return build(ModelConfig(name=name, args=args), SPECS[kind], CLASSES[task], seed=seed)


def rows(kind: str, task: Task, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    spec, rng = SPECS[kind], np.random.default_rng(0)
    if kind == "tokens":
        x = rng.integers(0, spec.vocabulary_size, (count, *spec.shape), dtype=np.int32)
    else:
        x = rng.random((count, *spec.shape), np.float32)
    y = rng.random(count, np.float32) if task == "regression" else rng.integers(0, CLASSES[task], count)
    return x, y.astype(np.float32 if task == "regression" else np.int32)


def digest(model: keras.Model) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_output_fits_the_labels(name: str, task: Task) -> None:
    for kind in MODELS[name].kinds:
        model = made(name, task, kind=kind)
        compile_model(model, TrainingConfig(), task)
        x, _ = rows(kind, task)
        found = np.asarray(model(x))
        assert found.shape == (6, 4 if task == "multiclass" else 1)
        assert found.dtype == np.float32
        if task != "regression":
            assert ((found >= 0) & (found <= 1)).all()
        if task == "multiclass":
            np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_and_is_the_same_after_saving(name: str, tmp_path: Path) -> None:
    task = MODELS[name].tasks[-1]
    model = made(name, task)
    compile_model(model, TrainingConfig(optimizer="adam", learning_rate=0.01), task)
    assert model.jit_compile is False
    assert [m.name for m in model.metrics] == ["loss"]  # ours are computed from predictions
    x, y = rows(MODELS[name].kinds[0], task)
    losses = [float(model.train_on_batch(x, y)) for _ in range(5)]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")  # with Keras' own layers only
    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(model(x)))


@pytest.mark.parametrize("name", ["mlp", "cnn", "pooled-text", "gru-sequence"])
def test_seed_decides_the_initial_weights(name: str) -> None:
    task = MODELS[name].tasks[0]
    assert digest(made(name, task)) == digest(made(name, task))
    assert digest(made(name, task)) != digest(made(name, task, seed=2))


def test_initial_weights_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib, random, numpy as np; random.seed(99); np.random.seed(99)\n"
        "import keras; keras.layers.Dense(3).build((None, 2))\n"  # other draws and layer names before
        "from shoal.common.config import ModelConfig\nfrom shoal.common.models import build\n"
        "from shoal.common.schema import InputSpec\n"
        "m = build(ModelConfig(name='mlp', args={}), InputSpec('vector', (5,)), 2, seed=1)\n"
        "print(hashlib.sha256(b''.join(w.tobytes() for w in m.get_weights())).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(made("mlp"))


def test_global_generators_go_on_as_if_nothing_had_been_built() -> None:
    random.seed(5)
    np.random.seed(5)
    wanted = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    made("mlp")
    assert (random.random(), np.random.random()) == wanted


def test_cnn_of_mcmahan_has_their_number_of_weights() -> None:
    """5·5·1·32 + 32, 5·5·32·64 + 64, 7·7·64·512 + 512, 512·10 + 10: 1,663,370 as in the paper."""
    args = {"filters": [32, 64], "kernel": 5, "dense": 512}
    model = build(ModelConfig(name="cnn", args=args), InputSpec("image", (28, 28, 1)), 10, seed=1)
    assert model.count_params() == 832 + 51_264 + 1_606_144 + 5_130 == 1_663_370


def test_lstm_has_the_number_of_weights_of_its_formula() -> None:
    """Embedding 10,000·32; LSTM 4·(32·128 + 128·128 + 128); Dense 128 + 1."""
    spec = InputSpec("tokens", (40,), vocabulary_size=10_000)
    model = build(ModelConfig(name="lstm-text"), spec, 2, seed=1)
    assert model.count_params() == 320_000 + 82_432 + 129


def test_pooled_text_leaves_padding_out_of_the_mean() -> None:
    """Ids 2 and 3 embed to (1, 2) and (3, 6); their mean (2, 4), whatever the padding's vector is."""
    model = made("pooled-text", embedding=2, dense=2)
    table = np.zeros((20, 2), np.float32)
    table[0], table[2], table[3] = 100, (1, 2), (3, 6)
    identity, zeros = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    model.set_weights([table, identity, zeros, np.array([[1], [10]], np.float32), np.zeros(1, np.float32)])
    inner = keras.Model(model.inputs[0], model.get_layer("output").input)
    texts = np.array([[2, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
    np.testing.assert_allclose(np.asarray(inner(texts)), [[2, 4], [0, 0]])  # without tokens: zeros, not NaN


def test_linear_starts_at_zero_and_logistic_has_its_penalty() -> None:
    assert all((w == 0).all() for w in made("linear", "regression").get_weights())
    model = made("logistic", l2=0.5)
    kernel, _ = model.get_weights()
    assert float(sum(model.losses)) == pytest.approx(0.5 * float(np.square(kernel).sum()), rel=1e-6)


def test_dropout_is_there_if_asked_for() -> None:
    assert not [layer for layer in made("mlp").layers if isinstance(layer, keras.layers.Dropout)]
    dropouts = [x for x in made("mlp", dropout=0.25).layers if isinstance(x, keras.layers.Dropout)]
    assert [layer.rate for layer in dropouts] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "kind", "task", "expected"),
    [
        ("cnn", "vector", "binary", 'model "cnn" needs image inputs, but the data has vector'),
        ("mlp", "tokens", "binary", "needs vector or image or sequence inputs"),
        ("linear", "vector", "binary", "supports regression tasks, but the task is binary"),
        ("logistic", "vector", "regression", "supports binary and multiclass tasks"),
    ],
)
def test_a_model_that_does_not_fit_names_those_that_do(
    name: str, kind: str, task: Task, expected: str
) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        made(name, task, kind=kind)
    assert "models for" in str(caught.value.hint)


def test_what_else_is_refused() -> None:
    with pytest.raises(ModelError, match="at least 16 pixels a side; the images have 8 x 8"):
        made("cnn", filters=[4, 4, 4, 4])
    with pytest.raises(ModelError, match="at least 2 classes"):
        build(ModelConfig(name="mlp"), SPECS["vector"], 1, seed=1)
    with pytest.raises(ConfigError, match='Did you mean "hidden"'):
        made("mlp", hiden=[3])


# --- compiling


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_by_name(optimizer: str) -> None:
    model = made("logistic")
    training = TrainingConfig(optimizer=optimizer, learning_rate=0.25, optimizer_args={"clipnorm": 1.0})
    compile_model(model, training, "binary")
    assert type(model.optimizer).__name__.lower() == optimizer
    assert float(model.optimizer.learning_rate) == 0.25
    assert model.optimizer.clipnorm == 1.0


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_name(loss: str) -> None:
    for task in LOSSES[loss].tasks:
        model = made("mlp", task)
        compile_model(model, TrainingConfig(loss=loss), task)
        x, y = rows("vector", task)
        predicted = keras.ops.abs(model(x))  # a Poisson rate is positive
        assert np.isfinite(float(model.compute_loss(x=x, y=y, y_pred=predicted)))


def test_loss_arguments_reach_the_loss() -> None:
    """Huber with delta 1 of an error of 3: 1·(3 - 1/2) = 2.5."""
    model = made("linear", "regression")
    compile_model(model, TrainingConfig(loss="huber", loss_args={"delta": 1.0}), "regression")
    x, y = np.zeros((2, 5), np.float32), np.full(2, 3.0, np.float32)
    assert float(model.test_on_batch(x, y)) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"optimizer_args": {"momentun": 0.9}}, 'Did you mean "momentum"?'),
        ({"optimizer_args": {"momentum": 2.0}}, "training.optimizer_args: SGD rejected them"),
        ({"optimizer_args": {"learning_rate": 2.0}}, "set training.learning_rate"),
        ({"loss": "binary_crosentropy"}, 'Did you mean "binary_crossentropy"?'),
        ({"loss": "huber"}, "does not fit a binary task"),
        ({"loss_args": {"label_smothing": 0.1}}, 'Did you mean "label_smoothing"?'),
        ({"loss_args": {"reduction": "sum"}}, "local training always takes the mean"),
        ({"loss": "mse", "loss_args": {"delta": 1}}, "MeanSquaredError takes no arguments, got delta"),
    ],
)
def test_what_is_wrong_with_the_training_is_said(training: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_model(made("logistic"), TrainingConfig(**training), "binary")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("units", "task", "expected"),
    [
        (2, "binary", r"output has shape \(None, 2\); a binary task needs \(None, 1\)"),
        (2, "regression", r"needs \(None, 1\)"),
        (1, "multiclass", r"the label has two classes"),
        (2, "multiclass", r"needs \(None, classes\) with 3 classes or more"),
    ],
)
def test_output_that_does_not_fit_is_refused_when_compiling(units: int, task: Task, expected: str) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(units)])
    with pytest.raises(ModelError, match=expected):
        compile_model(model, TrainingConfig(), task)


# --- a function of the user's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the present folder."""
    (tmp_path / "own_models_for_test.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "broken_models_for_test.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own")
def test_ones_own_function() -> None:
    config = ModelConfig(name="own_models_for_test:build", args={"units": 7})
    model = build(config, SPECS["vector"], 4, seed=1)
    compile_model(model, TrainingConfig(), "multiclass")
    assert [w.shape for w in model.get_weights()] == [(5, 7), (7,), (7, 4), (4,)]
    assert digest(model) == digest(build(config, SPECS["vector"], 4, seed=1))


@pytest.mark.usefixtures("own")
def test_ones_own_subclass_is_built() -> None:
    model = build(ModelConfig(name="own_models_for_test:subclass", args={"x": 1}), SPECS["vector"], 2, seed=1)
    assert [w.shape for w in model.get_weights()] == [(5, 1), (1,)]
    compile_model(model, TrainingConfig(), "binary")
    assert np.isfinite(float(model.train_on_batch(*rows("vector", "binary"))))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "args", "error", "expected"),
    [
        ("own_models_for_test:fails", {}, ModelError, "failed: RuntimeError: out of ideas"),
        ("own_models_for_test:nothing", {}, ModelError, "returned a NoneType, expected a keras.Model"),
        ("own_models_for_test:other_input", {}, ModelError, r"does not accept inputs of shape \(5,\)"),
        ("own_models_for_test:build", {}, ModelError, r"shape \(1, 2\); labels of 2 classes need \(1, 1\)"),
        ("own_models_for_test:build", {"unit": 3}, ConfigError, 'Did you mean "units"'),
        ("own_models_for_test:NUMBER", {}, ConfigError, "is a int, expected a function"),
        ("own_models_for_test:missing", {}, ConfigError, "cannot be loaded: AttributeError"),
        ("broken_models_for_test:build", {}, ConfigError, "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_ones_own_function_is_said(
    name: str, args: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        build(ModelConfig(name=name, args=args), SPECS["vector"], 2, seed=1)
