"""Losses of the user's own: trained with as Keras' are, or refused before the first round."""

from __future__ import annotations

from pathlib import Path

import pytest
from users_module import write_module

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.events import RoundRow
from shoal.simulations.checks.scenario import validate
from shoal.simulations.results import RunFolder
from shoal.simulations.run import run_scenario

LOSSES = """
import keras
from keras import ops


def absolute(labels, predictions):
    return ops.abs(predictions[:, 0] - ops.cast(labels, predictions.dtype))


def pinball(labels, predictions, quantile=0.5):
    over = ops.cast(labels, predictions.dtype) - predictions[:, 0]
    return ops.maximum(quantile * over, (quantile - 1) * over)


class Scaled(keras.losses.Loss):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def call(self, labels, predictions):
        return self.factor * absolute(labels, predictions)


def one_number(labels, predictions):
    return ops.mean(absolute(labels, predictions))


def fails(labels, predictions):
    raise KeyError("no such key")


limit = 3
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_module(tmp_path, monkeypatch, "own_losses", LOSSES)
    return tmp_path


def scenario(loss: str, *more: str) -> Scenario:
    given = ["partition.clients=3", "training.rounds=2", "resources.backend=serial", "output.bootstrap=10"]
    return load_scenario("linear", [*given, f"training.loss={loss}", *more])


def rounds(loss: str, *more: str) -> list[RoundRow]:
    return RunFolder(run_scenario(scenario(loss, *more))).round_rows()


def losses(loss: str, *more: str) -> list[float]:
    found = rounds(loss, *more)
    return [row.train_loss for row in found[1:]] + [row.metrics["loss"] for row in found]


@pytest.mark.parametrize("mode", ["sequential", "stacked"])
def test_a_function_and_a_class_train_as_the_loss_of_keras_that_they_repeat(mode: str) -> None:
    how = f"resources.execution_mode={mode}"
    keras = losses("mae", how)
    assert losses("own_losses:absolute", how) == pytest.approx(keras, rel=1e-5)
    assert losses("own_losses:Scaled", how) == pytest.approx(keras, rel=1e-5)


def test_arguments_reach_the_loss() -> None:
    """The pinball loss of the median is half of the absolute error; at first only the factor differs."""
    absolute = rounds("own_losses:absolute")[0].metrics["loss"]
    assert rounds("own_losses:pinball")[0].metrics["loss"] == pytest.approx(absolute / 2, rel=1e-5)
    tenfold = rounds("own_losses:Scaled", "training.loss_args.factor=10.0")[0].metrics["loss"]
    assert tenfold == pytest.approx(10 * absolute, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "more", "says"),
    [
        ("own_losses:one_number", (), "returned an array of shape (), expected 8 finite numbers"),
        ("own_losses:fails", (), "own_losses:fails: the loss fails: KeyError"),
        ("own_losses:limit", (), "is a int, expected a subclass of keras.losses.Loss, or a function"),
        ("own_losses:absent", (), "cannot be loaded: AttributeError"),
        ("no_losses_here:f", (), 'there is no package or module "no_losses_here"'),
        ("own_losses:pinball", ("training.loss_args.quantil=0.1",), "pinball takes no quantil"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_before_training(
    loss: str, more: tuple[str, ...], says: str
) -> None:
    problems = validate(scenario(loss, *more), deep=True)
    assert len(problems) == 1
    assert says in problems[0]
