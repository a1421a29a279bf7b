"""Users' own models: each trains, exports and predicts, or is refused before the first round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from users_module import write_module

from shoal.common.config import Scenario
from shoal.common.errors import ModelError
from shoal.common.keras_loading import load_keras
from shoal.common.preprocessing.layers import column_name, input_name
from shoal.simulations.checks.scenario import validate
from shoal.simulations.predict import predict
from shoal.simulations.results import RunFolder
from shoal.simulations.run import run_scenario

load_keras()
import keras  # noqa: E402

MODELS = '''
import keras
from keras import layers


def network(spec, output, kind=keras.Model):
    inputs = keras.Input(spec.shape)
    return kind(inputs, output(inputs))


class Plain(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.hidden, self.out = layers.Dense(units), layers.Dense(1, activation="sigmoid")

    def call(self, x):
        return self.out(self.hidden(x))


class Described(Plain):
    def __init__(self, units, **kwargs):
        super().__init__(units)
        self.units = units

    def get_config(self):
        return {"units": self.units}


class Forgetful(Described):
    def get_config(self):
        return {"units": self.units + 1}


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


class Own(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = keras.metrics.Mean()

    @property
    def metrics(self):
        return [self.seen]

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        self.seen.update_state(loss)
        return {"loss": self.seen.result()}


class Silent(Own):
    def train_step(self, data):
        return {}


class Broken(Own):
    def train_step(self, data):
        raise KeyError("no such key")


def plain(spec, classes):
    return Plain(4)


def described(spec, classes):
    return Described(4)


def forgetful(spec, classes):
    return Forgetful(4)


def custom(spec, classes):
    return network(spec, lambda x: layers.Dense(1, activation="sigmoid")(Twice()(x)))


def zero(spec, classes, kind=Own):
    """Its first loss is ln 2, whatever the rows."""
    out = layers.Dense(1, activation="sigmoid", kernel_initializer="zeros")
    return network(spec, out, kind)


def silent(spec, classes):
    return zero(spec, classes, Silent)


def broken(spec, classes):
    return zero(spec, classes, Broken)


def compiled(spec, classes):
    model = network(spec, layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy")
    return model


def logits(spec, classes):
    return network(spec, layers.Dense(1))


def recurrent(spec, classes):
    inputs = keras.Input(spec.shape)
    steps = layers.Reshape((-1, 1))(inputs)
    start = layers.Dense(4)(inputs)
    out = layers.LSTM(4)(steps, initial_state=[start, start])
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(out))
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_module(tmp_path, monkeypatch, "odd_models", MODELS)
    return tmp_path


def scenario(
    place: Path, model: str, columns: tuple[str, ...] = ("age", "bmi"), **sections: object
) -> Scenario:
    rows = [",".join(["site", *columns, "y"])]
    for i in range(60):
        numbers = [str(20 + i + k * (i % 7)) for k in range(len(columns))]
        rows.append(",".join(["AB"[i % 2], *numbers, "yes" if i > 30 else "no"]))
    (place / "p.csv").write_text("\n".join(rows), encoding="utf-8")
    given = {
        "name": "t",
        "data": {"source": "csv", "path": str(place / "p.csv"), "client_column": "site", "label": "y"},
        "model": {"name": model},
        "partition": {"min_rows": 2},
        "training": {"rounds": 1},
        "output": {"directory": str(place / "runs"), "bootstrap": 0},
        "resources": {"backend": "serial"},
    }
    return Scenario.model_validate(given | sections)


def test_columns_named_as_no_layer_can_be_are_predicted(place: Path) -> None:
    """Names that Keras refuses, that our layers or the model have, and that look encoded already."""
    columns = (
        "HbA1c (mmol/mol)",
        "concatenate",
        "mlp",
        "preprocessing_of_mlp",
        "50%",
        "a%2Fb",
        "胆/固:醇",
        "_z",
    )
    config = scenario(place, "mlp", columns)
    assert validate(config, deep=True) == []
    run = run_scenario(config)
    (place / "q.csv").write_text(",".join(columns) + "\n" + ",".join(["30"] * len(columns)), encoding="utf-8")
    assert predict(run, place / "q.csv", None).num_rows == 1
    names = {tensor.name for tensor in keras.models.load_model(run / "model.keras", compile=False).inputs}
    assert {column_name(name) for name in names} == set(columns)


def test_an_input_is_named_after_its_column_wherever_keras_allows_it() -> None:
    assert input_name("age (years), 年龄", ("mlp",)) == "age (years), 年龄"
    assert input_name("a/b", ()) == "a%2Fb"
    assert input_name("mlp", ("mlp",)) == "%6Dlp"  # m is 6D in ASCII
    assert column_name("%6Dlp") == "mlp"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("plain", "cannot be exported.*get_config"),
        ("forgetful", "cannot be exported|predicts something else"),
        ("silent", "neither calls self.compute_loss nor returns its loss"),
        ("broken", "a training step fails: KeyError"),
        ("compiled", "returned a compiled model"),
        ("logits", "outputs are no probabilities"),
    ],
)
def test_what_would_fail_after_training_is_refused_before(place: Path, model: str, told: str) -> None:
    config = scenario(place, f"odd_models:{model}")
    with pytest.raises(ModelError, match=told):
        run_scenario(config)
    (folder,) = (place / "runs").iterdir()
    assert RunFolder(folder).round_rows() == []  # nothing was trained, nor evaluated
    (problem,) = validate(config, deep=True)
    assert f"odd_models:{model}" in problem or "train_step" in problem


@pytest.mark.parametrize("model", ["described", "custom", "zero", "recurrent"])
def test_own_classes_train_and_are_found_again(place: Path, model: str) -> None:
    config = scenario(place, f"odd_models:{model}")
    assert validate(config, deep=True) == []
    run = run_scenario(config)
    (place / "q.csv").write_text("age,bmi\n30,20\n", encoding="utf-8")
    assert predict(run, place / "q.csv", None).num_rows == 1
    losses = [row.train_loss for row in RunFolder(run).round_rows()[1:]]
    assert all(loss > 0 for loss in losses)
    if model == "zero":  # sigmoid(0) = 1/2, and -ln(1/2) = 0.693 is the loss of the first step
        assert losses[0] == pytest.approx(np.log(2), abs=0.05)


def test_a_new_process_finds_the_classes_where_their_module_is(place: Path) -> None:
    run = run_scenario(scenario(place, "odd_models:custom"))
    (place / "q.csv").write_text("age,bmi\n30,20\n", encoding="utf-8")
    command = [sys.executable, "-m", "shoal", "predict", str(run), "q.csv"]
    found = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("prediction,")
    assert found.stderr == ""  # nor a line from TensorFlow
    (place / "odd_models.py").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "odd_models")
        patch.setattr(keras.saving, "get_custom_objects", dict)
        with pytest.raises(
            Exception, match=r"Could not locate class 'Twice'.*(\n.*)*where their module can be"
        ):
            predict(run, place / "q.csv", None)


@pytest.mark.parametrize(
    "argument",
    [{"use_ema": True}, {"ema_momentum": 0.9}, {"gradient_accumulation_steps": 2}],
    ids=lambda argument: next(iter(argument)),
)
def test_arguments_of_optimizers_that_a_round_would_undo_are_refused(
    place: Path, argument: dict[str, object]
) -> None:
    training = {"rounds": 1, "optimizer": "adam", "optimizer_args": argument}
    (problem,) = validate(scenario(place, "mlp", training=training), deep=True)
    assert problem.startswith(f"training.optimizer_args.{next(iter(argument))}: ")


def test_losses_of_logits_are_refused(place: Path) -> None:
    training = {"rounds": 1, "loss": "binary_crossentropy", "loss_args": {"from_logits": True}}
    (problem,) = validate(scenario(place, "mlp", training=training), deep=True)
    assert problem.startswith("training.loss_args.from_logits: ")


def test_two_classes_are_no_multiclass_task(place: Path) -> None:
    config = scenario(place, "mlp")
    config = config.model_copy(update={"data": config.data.model_copy(update={"task": "multiclass"})})
    (problem,) = validate(config, deep=True)
    assert "two classes" in problem
    assert 'remove data.task, or set it to "binary"' in problem


def test_without_validation_rows_the_last_round_is_said_to_be_kept(place: Path) -> None:
    """With one validation row a site, no AUC exists."""
    config = scenario(place, "mlp", training={"rounds": 2})
    config = config.model_copy(update={"data": config.data.model_copy(update={"validation_fraction": 0.02})})
    run = RunFolder(run_scenario(config))
    assert not any(row.best for row in run.round_rows())
    assert run.summary()["best_round"] == 2
    assert "test: the last federated model" in (run.path / "log.txt").read_text(encoding="utf-8")
