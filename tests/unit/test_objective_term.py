"""An objective becomes part of any Keras model's loss for one training, and of nothing else."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from shoal.clients.training.local_settings import LocalSettings, LocalTask
from shoal.clients.training.objective import LocalObjective
from shoal.clients.training.stacked import StackedTrainer
from shoal.clients.training.trainer import Trainer
from shoal.common.errors import ModelError
from tests.helpers.training import FEATURES, make_model, make_rows

SETTINGS = LocalSettings(learning_rate=0.05, batch_size=5, epochs=2)


def train(trainer: Trainer, objective: LocalObjective | None = None) -> list[np.ndarray]:
    start = [np.full(v.shape, 0.1, np.float32) for v in trainer.model.weights]
    return trainer.train(start, *make_rows(), SETTINGS, np.random.default_rng(7), objective)[0]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def slopes(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=v.shape).astype(np.float32) for v in model.trainable_variables]


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.05),
        lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.05, global_clipnorm=0.5),
    ],
    ids=["adam", "adamw", "nesterov", "clipped"],
)
def test_any_optimizer_sees_the_linear_term_as_part_of_the_gradient(optimizer: Any) -> None:
    """As if the loss had been written with ⟨linear, w⟩ in it, which a model's regularizers can say, too."""
    explicit = make_model(optimizer())
    linear = slopes(explicit)
    for variable, slope in zip(explicit.trainable_variables, linear, strict=True):
        own = variable.regularizer

        def written(value: Any, own: Any = own, slope: np.ndarray = slope) -> tf.Tensor:
            value = tf.convert_to_tensor(value)
            return (own(value) if own else 0.0) + tf.reduce_sum(slope * value)

        variable.regularizer = written
    wanted = train(Trainer(explicit))
    found = train(Trainer(make_model(optimizer())), LocalObjective(linear=linear))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_training_with_an_objective_leaves_no_trace_in_the_model() -> None:
    """Trained and evaluated afterwards, alone or in a stack of the same model, nothing of it is left."""
    model, fresh = make_model(keras.optimizers.SGD(0.05)), make_model(keras.optimizers.SGD(0.05))
    trainer = Trainer(model)
    own = [v.regularizer for v in model.trainable_variables]
    train(trainer, LocalObjective(0.5, linear=slopes(model)))
    assert [v.regularizer for v in model.trainable_variables] == own
    assert same(train(trainer), train(Trainer(fresh)))
    start = [w.copy() for w in fresh.get_weights()]
    assert trainer.evaluate(start, *make_rows())[1] == Trainer(fresh).evaluate(start, *make_rows())[1]
    found, wanted = (
        StackedTrainer(one).train(
            start, [LocalTask(*make_rows(), SETTINGS, np.random.default_rng(7))], LocalObjective(0.5)
        )
        for one in (model, fresh)
    )
    assert same(found.weights, wanted.weights)


def test_a_failed_training_leaves_no_trace_either() -> None:
    model = make_model(keras.optimizers.SGD(0.05))
    trainer = Trainer(model)
    own = [v.regularizer for v in model.trainable_variables]
    too_wide = np.zeros((5, FEATURES + 1), np.float32), np.zeros(5, np.int32)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="incompatible"):
        trainer.train(model.get_weights(), *too_wide, SETTINGS, rng, LocalObjective(0.5))
    assert [v.regularizer for v in model.trainable_variables] == own
    assert trainer.objective_term.parts == ()


def test_one_graph_serves_all_values() -> None:
    """One for plain training, and one for each combination of terms; zeros are values like others."""
    trainer = Trainer(make_model(keras.optimizers.SGD(0.05)))
    linear = slopes(trainer.model)
    none = [np.zeros_like(slope) for slope in linear]
    plain = train(trainer)
    assert same(train(trainer, LocalObjective()), plain)
    assert trainer.traces == 1
    for objective in (
        LocalObjective(0.5),
        LocalObjective(0.1, anchor=linear),
        LocalObjective(7, anchor=none),
    ):
        assert not same(train(trainer, objective), plain)
    assert trainer.traces == 2
    assert not same(train(trainer, LocalObjective(linear=linear)), plain)
    assert same(train(trainer, LocalObjective(linear=none)), plain)
    assert trainer.traces == 3
    train(trainer, LocalObjective(0.5, linear=linear))
    assert trainer.traces == 4


def test_non_trainable_weights_have_no_term() -> None:
    """Moving averages of batch norm are neither counted among the arrays nor held by the anchor."""
    model = make_model(keras.optimizers.SGD(1e-9), extras=True)
    settings = LocalSettings(learning_rate=1e-9, batch_size=5)
    start, given = model.get_weights(), (*make_rows(), settings)
    anchor = [np.zeros(v.shape, np.float32) for v in model.trainable_variables]
    held = Trainer(model).train(start, *given, np.random.default_rng(7), LocalObjective(9.0, anchor))[0]
    free = Trainer(model).train(start, *given, np.random.default_rng(7))[0]
    averages = [k for k, v in enumerate(model.weights) if not v.trainable]
    assert len(averages) == 2
    assert all(np.array_equal(held[k], free[k]) for k in averages)
    assert not np.array_equal(held[averages[0]], start[averages[0]])


class OwnStep(keras.Model):
    """A user's model with a training step of its own, which may leave out the losses of its layers."""

    def __init__(self, *, complete: bool) -> None:
        super().__init__()
        self.head = keras.layers.Dense(1, activation="sigmoid")
        self.complete = complete

    def call(self, inputs: Any) -> Any:
        return self.head(inputs)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(y[:, None], self(x, training=True)))
            if self.complete:
                loss += sum(self.losses)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        self._loss_tracker.update_state(loss)
        return {"loss": loss}


def own_step(*, complete: bool) -> Trainer:
    model = OwnStep(complete=complete)
    model(np.zeros((1, FEATURES), np.float32))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="binary_crossentropy", jit_compile=False)
    return Trainer(model)


def test_a_train_step_of_the_users_own_has_the_objective_in_its_losses() -> None:
    """A proximal term this strong holds the weights within one step's gradient of where they start."""
    trainer = own_step(complete=True)
    free, held = (train(trainer, LocalObjective(mu))[0] for mu in (0.0, 15.0))
    assert np.abs(held - 0.1).max() < 0.3 * np.abs(free - 0.1).max()


def test_a_train_step_that_leaves_out_the_losses_is_refused() -> None:
    trainer = own_step(complete=False)
    train(trainer)  # without an objective there is nothing to leave out
    with pytest.raises(ModelError, match=r"omits model\.losses"):
        train(trainer, LocalObjective(0.5))
