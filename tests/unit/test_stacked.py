"""A stack of clients learns what each client learns on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.clients.training.local_settings import LocalSettings, LocalTask
from shoal.clients.training.objective import LocalObjective
from shoal.clients.training.stacked import StackedTrainer, why_not
from shoal.clients.training.trainer import Trainer

FEATURES = 4
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.01),
}
# Sums over a batch are taken in another order, in float32; Adam divides by a root near zero.
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}


def make_model(optimizer: str, *between: keras.layers.Layer, width: int = 6) -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(width, activation="relu", kernel_regularizer="l2"), *between]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=OPTIMIZERS[optimizer](), loss="binary_crossentropy")
    return model


def make_tasks(sizes: list[int], **changes: Any) -> list[LocalTask]:
    tasks = []
    for client, rows in enumerate(sizes):
        rng = np.random.default_rng(client)
        x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
        y = (x.sum(axis=1) > 0).astype(np.int32)
        given = {"learning_rate": 0.05, "batch_size": 5, "dropout_seed": client, **changes}
        tasks.append(LocalTask(x, y, LocalSettings(**given), np.random.default_rng(100 + client)))
    return tasks


def assert_equal_to_one_by_one(
    model: keras.Model, sizes: list[int], objective: LocalObjective | None = None, **changes: Any
) -> None:
    start = [w.copy() for w in model.get_weights()]
    stack = StackedTrainer(model).train(start, make_tasks(sizes, **changes), objective)
    trainer = Trainer(model)
    for k, task in enumerate(make_tasks(sizes, **changes)):
        weights, loss, steps = trainer.train(start, task.x, task.y, task.settings, task.rng, objective)
        assert steps == stack.steps[k]
        assert loss == pytest.approx(stack.losses[k], rel=1e-4)
        for wanted, found in zip(weights, stack.weights, strict=True):
            np.testing.assert_allclose(found[k], wanted, **TOLERANCE)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "changes",
    [{"steps": 7}, {"epochs": 2, "class_weights": (0.5, 2.0), "objective": LocalObjective(0.3)}],
    ids=["steps", "weighted-proximal"],
)
def test_equals_one_by_one(optimizer: str, changes: dict[str, Any]) -> None:
    # 23 rows: a last batch of 3; 2 rows: fewer than a batch; 10: done while others go on
    assert_equal_to_one_by_one(make_model(optimizer), [23, 2, 10, 23], **changes)


@pytest.mark.parametrize("layer", [keras.layers.LayerNormalization, lambda: keras.layers.Dropout(0.4)])
def test_normalisation_and_dropout_equal_one_by_one(layer: Any) -> None:
    """A dropout mask of 3 rows is the beginning of the mask of 5, so it is the same draw."""
    assert_equal_to_one_by_one(make_model("sgd", layer()), [23, 2, 10], epochs=2)


def test_embedding_equals_one_by_one() -> None:
    keras.utils.set_random_seed(3)
    pooled = keras.layers.GlobalAveragePooling1D()
    head = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((7,), dtype="int32"), keras.layers.Embedding(20, 3), pooled, head])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="binary_crossentropy")
    start = model.get_weights()
    rng = np.random.default_rng(0)
    rows = [(rng.integers(0, 20, (n, 7), np.int32), rng.integers(0, 2, n, np.int32)) for n in (11, 4)]
    chosen = LocalSettings(learning_rate=0.5, batch_size=5)
    tasks = [LocalTask(x, y, chosen, np.random.default_rng(k)) for k, (x, y) in enumerate(rows)]
    stack = StackedTrainer(model).train(start, tasks)
    for k, (x, y) in enumerate(rows):
        wanted, _, _ = Trainer(model).train(start, x, y, chosen, np.random.default_rng(k))
        for a, b in zip(wanted, stack.weights, strict=True):
            np.testing.assert_allclose(b[k], a, **TOLERANCE)


@settings(max_examples=6, deadline=None)
@given(
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    width=st.integers(1, 9),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    epochs=st.integers(1, 3),
)
def test_any_stack_equals_one_by_one(optimizer: str, width: int, sizes: list[int], epochs: int) -> None:
    assert_equal_to_one_by_one(make_model(optimizer, width=width), sizes, epochs=epochs)


def test_one_stack_gives_the_same_bits_whatever_was_trained_before() -> None:
    model = make_model("adam")
    trainer, start = StackedTrainer(model), model.get_weights()
    first = trainer.train(start, make_tasks([23, 10]))
    trainer.train(start, make_tasks([5, 40, 7]), LocalObjective(0.5))
    again = trainer.train(start, make_tasks([23, 10]))
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, again.weights, strict=True))


def test_traced_once_for_stacks_and_shards_of_any_size() -> None:
    model = make_model("sgd")
    trainer, start = StackedTrainer(model), model.get_weights()
    for sizes in ([5], [23, 10], [7, 40, 2]):
        trainer.train(start, make_tasks(sizes))
    assert trainer.traces == 1


def test_graphs_are_made_for_arrays_with_a_client_axis_and_for_terms_not_for_values() -> None:
    model = make_model("sgd")
    trainer, shared = StackedTrainer(model), model.get_weights()
    for sizes in ([23, 10], [7, 40, 2]):
        each = [np.repeat(w[None], len(sizes), axis=0) for w in shared]
        trainer.train(each, make_tasks(sizes))
        trainer.train(shared, make_tasks(sizes), LocalObjective(0.1))
        trainer.train(shared, make_tasks(sizes), LocalObjective(np.full(len(sizes), 0.2)))
        trainer.train(each, make_tasks(sizes), LocalObjective(0.1, shared, linear=each))
    assert trainer.traces == 3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_equal_starts_give_the_bits_of_one_shared_start(optimizer: str) -> None:
    model = make_model(optimizer, keras.layers.Dropout(0.4))
    trainer, shared = StackedTrainer(model), model.get_weights()
    each = [np.repeat(w[None], 3, axis=0) for w in shared]
    for objective in (None, LocalObjective(0.3)):
        first = trainer.train(shared, make_tasks([23, 2, 10], epochs=2), objective)
        second = trainer.train(each, make_tasks([23, 2, 10], epochs=2), objective)
        assert all(np.array_equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))
        assert np.array_equal(first.losses, second.losses)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_client_does_not_depend_on_its_neighbours(optimizer: str) -> None:
    """The second client's bits stay, whatever weights, objectives and rows the others of the stack have."""
    model = make_model(optimizer, keras.layers.Dropout(0.4))
    trainer = StackedTrainer(model)
    rng = np.random.default_rng(0)
    arrays = [
        [rng.normal(size=(3, *w.shape)).astype(np.float32) for w in model.get_weights()] for _ in range(3)
    ]
    mu = np.array([0.1, 0.3, 0.5], np.float32)

    def second_client(moved: float) -> list[np.ndarray]:
        others = np.array([moved, 0, moved], np.float32)
        start, anchor, linear = (
            [w + others.reshape(-1, *[1] * (w.ndim - 1)) for w in part] for part in arrays
        )
        tasks = [
            replace(task, x=task.x + other)
            for task, other in zip(make_tasks([23, 9, 10]), others, strict=True)
        ]
        found = trainer.train(start, tasks, LocalObjective(mu + others, anchor, linear))
        return [*(w[1] for w in found.weights), found.losses[1]]

    first = second_client(0.0)
    assert all(np.array_equal(a, b) for a, b in zip(first, second_client(0.7), strict=True))


def test_frozen_weights_and_heads_may_be_personal() -> None:
    """A frozen first layer and a head for each client, and between them a layer with a shared start."""
    model = make_model("sgd", keras.layers.Dense(4, activation="relu"))
    model.layers[0].trainable = False
    model.compile(optimizer=OPTIMIZERS["sgd"](), loss="binary_crossentropy")
    rng = np.random.default_rng(0)
    shared = model.get_weights()
    each = [rng.normal(size=(3, *w.shape)).astype(np.float32) for w in shared]
    start = [*each[:2], *shared[2:4], *each[4:]]
    anchor = [np.zeros_like(w) for w in shared[2:]]  # of trainable weights only
    objective = LocalObjective(0.3, anchor)
    stack = StackedTrainer(model).train(start, make_tasks([23, 2, 10]), objective)
    assert all(np.array_equal(a, b) for a, b in zip(stack.weights[:2], each[:2], strict=True))
    trainer = Trainer(model)
    for k, task in enumerate(make_tasks([23, 2, 10])):
        own = [w if w is shared[i] else w[k] for i, w in enumerate(start)]
        wanted, loss, _ = trainer.train(own, task.x, task.y, task.settings, task.rng, objective)
        assert loss == pytest.approx(stack.losses[k], rel=1e-4)
        for a, b in zip(stack.weights, wanted, strict=True):
            np.testing.assert_allclose(a[k], b, **TOLERANCE)


def test_weights_of_another_number_of_clients_are_refused() -> None:
    model = make_model("sgd")
    each = [np.repeat(w[None], 3, axis=0) for w in model.get_weights()]
    with pytest.raises(
        ValueError, match=r"weights\[0\] has shape \(3, 4, 6\); expected \(4, 6\), or \(2, 4, 6\)"
    ):
        StackedTrainer(model).train(each, make_tasks([5, 5]))


def test_arguments_are_not_mutated() -> None:
    model = make_model("adam")
    start, tasks = model.get_weights(), make_tasks([23, 10])
    before = [a.copy() for a in (*start, *(t.x for t in tasks), *(t.y for t in tasks))]
    StackedTrainer(model).train(start, tasks)
    after = (*start, *(t.x for t in tasks), *(t.y for t in tasks))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


class _OwnStep(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: make_model("sgd", keras.layers.BatchNormalization()), "BatchNormalization layers"),
        (
            lambda: keras.Sequential([keras.Input((5, 2)), keras.layers.LSTM(3), keras.layers.Dense(1)]),
            "LSTM layers",
        ),
        (_OwnStep, "train_step"),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((5,)),
                    keras.layers.Embedding(9, 2),
                    keras.layers.Flatten(),
                    keras.layers.Dense(1),
                ]
            ),
            "sparse gradients of an Embedding",
        ),
    ],
)
def test_says_why_not(model: Any, reason: str) -> None:
    made = model()
    if not getattr(made, "compiled", False):
        made.compile(optimizer="adam", loss="mse")
    assert reason in why_not(made)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.RMSprop(),
        keras.optimizers.SGD(clipnorm=1.0),
        keras.optimizers.Adam(amsgrad=True),
        keras.optimizers.SGD(weight_decay=0.1),
    ],
)
def test_optimizers_without_a_stacked_form_are_named(optimizer: keras.optimizers.Optimizer) -> None:
    model = make_model("sgd")
    model.compile(optimizer=optimizer, loss="binary_crossentropy")
    assert type(optimizer).__name__ in why_not(model)


def test_evaluation_of_many_equals_evaluation_of_each() -> None:
    model = make_model("sgd")
    trainer, start = Trainer(model), model.get_weights()
    parts = [(t.x, t.y) for t in make_tasks([23, 1, 1500])]
    for (x, y), (predicted, loss) in zip(parts, trainer.evaluate_many(start, parts), strict=True):
        wanted, wanted_loss = trainer.evaluate(start, x, y)
        np.testing.assert_allclose(predicted, wanted, rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(wanted_loss, rel=1e-5)
