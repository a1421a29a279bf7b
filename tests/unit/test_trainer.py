"""The compiled local training equals Keras' own `fit` on the same batches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shoal.clients.training.local_settings import LocalSettings, batch_plan
from shoal.clients.training.objective import LocalObjective
from shoal.clients.training.trainer import Trainer
from shoal.common.errors import NonFiniteError
from tests.helpers.training import FEATURES, ROWS, make_model, make_rows

BATCH = 5  # of 23 rows: the last batch of an epoch has 3


def settings(**changes: Any) -> LocalSettings:
    return LocalSettings(**{"learning_rate": 0.05, "batch_size": BATCH, "epochs": 2, **changes})


def fit_the_same(model: keras.Model, start: list[np.ndarray], x: Any, y: Any, s: LocalSettings) -> list[Any]:
    """Keras' own steps over the batches of the same plan."""
    model.set_weights(start)
    order, bounds = batch_plan(len(y), s, np.random.default_rng(7))
    weights = None if s.class_weights is None else np.asarray(s.class_weights, np.float32)[y]
    for i in range(len(bounds) - 1):
        rows = order[bounds[i] : bounds[i + 1]]
        w = None if weights is None else weights[rows]
        model.fit(x[rows], y[rows], sample_weight=w, batch_size=len(rows), shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("extras", [False, True], ids=["plain", "batch-norm"])
@pytest.mark.parametrize("class_weights", [None, (0.5, 2.0)], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.05),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(0.05),
        lambda: keras.optimizers.AdamW(0.05, weight_decay=0.01),
    ],
    ids=["sgd", "momentum", "adam", "adamw"],
)
def test_equals_fit(optimizer: Any, class_weights: Any, extras: bool) -> None:
    x, y = make_rows()
    s = settings(class_weights=class_weights)
    trainer = Trainer(make_model(optimizer(), extras=extras))
    start = [w.copy() for w in trainer.model.get_weights()]
    found, _, steps = trainer.train(start, x, y, s, np.random.default_rng(7))
    wanted = fit_the_same(make_model(optimizer(), extras=extras), start, x, y, s)
    assert steps == 2 * 5  # ceil(23 / 5) steps in each of two epochs
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_equals_fit(precision: str) -> None:
    """The tolerance is that of 16 bits: 8 of mantissa in bfloat16."""
    x, y = make_rows()
    models = []
    for _ in range(2):
        keras.config.set_dtype_policy(precision)
        try:
            models.append(make_model(keras.optimizers.SGD(0.05)))
        finally:
            keras.config.set_dtype_policy("float32")
    trainer = Trainer(models[0])
    start = [w.copy() for w in trainer.model.get_weights()]
    found, _, _ = trainer.train(start, x, y, settings(), np.random.default_rng(7))
    wanted = fit_the_same(models[1], start, x, y, settings())
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN])
@pytest.mark.parametrize("tokens", [6, 70])
def test_recurrent_layers_equal_fit_unrolled_or_not(kind: Any, tokens: int) -> None:
    """Padding is masked, and `fit` runs the loop that the trainer makes a straight graph of (up to 64)."""
    rng = np.random.default_rng(4)
    x = rng.integers(0, 9, size=(23, tokens)).astype(np.int32)
    y = rng.integers(0, 2, size=23)

    def make() -> keras.Model:
        layers = [
            keras.Input((tokens,), dtype="int32"),
            keras.layers.Embedding(9, 3, mask_zero=True),
            kind(4),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
        model = keras.Sequential(layers)
        model.compile(optimizer=keras.optimizers.SGD(0.05), loss="binary_crossentropy")
        return model

    trainer = Trainer(make())
    assert trainer.model.layers[1].unroll == (tokens <= 64)
    start = [w.copy() for w in trainer.model.get_weights()]
    found, _, _ = trainer.train(start, x, y, settings(), np.random.default_rng(7))
    for a, b in zip(found, fit_the_same(make(), start, x, y, settings()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_clients_do_not_touch_each_other() -> None:
    trainer = Trainer(make_model(keras.optimizers.Adam(0.05), extras=True))
    start = [w.copy() for w in trainer.model.get_weights()]
    first = trainer.train(start, *make_rows(1), settings(), np.random.default_rng(7))
    trainer.train(start, *make_rows(2, rows=40), settings(), np.random.default_rng(8), LocalObjective(0.3))
    again = trainer.train(start, *make_rows(1), settings(), np.random.default_rng(7))
    assert all(np.array_equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert first[1] == again[1]


def test_traced_once_for_all_shard_sizes() -> None:
    trainer = Trainer(make_model(keras.optimizers.SGD(0.05)))
    start = trainer.model.get_weights()
    for rows in (7, 23, 64):
        trainer.train(start, *make_rows(rows, rows), settings(), np.random.default_rng(0))
        trainer.evaluate(start, *make_rows(rows, rows))
    assert trainer.traces == 2  # one for training, one for evaluation


def test_proximal_step_by_hand() -> None:
    """With w_0 = 0 and one feature x = 1, y = 0: loss (w - 0)² → gradient 2w; term mu (w - w_0).

    Start at w_0 = 1 with learning rate 0.1, mu = 0.5, two full-batch steps of mean squared error:
    step 1: gradient 2·1 + 0.5·(1 - 1) = 2            → w = 1 - 0.2 = 0.8
    step 2: gradient 2·0.8 + 0.5·(0.8 - 1) = 1.5      → w = 0.8 - 0.15 = 0.65
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    trainer = Trainer(model)
    x, y = np.ones((4, 1), np.float32), np.zeros(4, np.float32)
    s = LocalSettings(learning_rate=0.1, batch_size=4, epochs=2)
    found, _, _ = trainer.train(
        [np.ones((1, 1), np.float32)], x, y, s, np.random.default_rng(0), LocalObjective(0.5)
    )
    np.testing.assert_allclose(found[0], [[0.65]], rtol=1e-6)


def test_dropout_follows_its_seed() -> None:
    model = keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dropout(0.5), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="binary_crossentropy")
    trainer = Trainer(model)
    start = [w.copy() for w in model.get_weights()]
    runs = [
        trainer.train(start, *make_rows(), settings(dropout_seed=seed), np.random.default_rng(0))[0][0]
        for seed in (1, 2, 1)
    ]
    assert np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0], runs[1])


def test_evaluation_equals_keras() -> None:
    trainer = Trainer(make_model(keras.optimizers.SGD(0.05)))
    x, y = make_rows(rows=1500)  # more than one block of rows
    predicted, loss = trainer.evaluate(trainer.model.get_weights(), x, y)
    np.testing.assert_allclose(predicted, trainer.model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert loss == pytest.approx(trainer.model.evaluate(x, y, verbose=0), rel=1e-5)


def test_diverging_training_is_refused_in_words() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1e30), loss="mse")
    x, y = np.full((8, 1), 1e3, np.float32), np.ones(8, np.float32)
    with pytest.raises(NonFiniteError, match=r"learning rate 1e\+30"):
        Trainer(model).train(
            model.get_weights(), x, y, settings(learning_rate=1e30, epochs=5), np.random.default_rng(0)
        )


def test_arguments_are_not_mutated() -> None:
    trainer = Trainer(make_model(keras.optimizers.Adam(0.05)))
    start = trainer.model.get_weights()
    x, y = make_rows()
    copies = [a.copy() for a in (*start, x, y)]
    trainer.train(start, x, y, settings(), np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip((*start, x, y), copies, strict=True))


@pytest.mark.parametrize(("steps", "expected"), [(None, 10), (3, 3), (12, 12)])
def test_batch_plan_takes_whole_epochs_or_steps(steps: int | None, expected: int) -> None:
    order, bounds = batch_plan(ROWS, settings(steps=steps), np.random.default_rng(0))
    assert len(bounds) == expected + 1
    assert bounds[-1] == len(order)
    sizes = np.diff(bounds)
    # 23 rows in batches of 5: four full ones and one of 3, over and over
    assert list(sizes) == ([5, 5, 5, 5, 3] * 3)[:expected]
    if expected >= 5:
        assert sorted(order[:ROWS]) == list(range(ROWS))  # an epoch sees each row once
