"""DP-SGD takes the steps of its paper: each row clipped, the sum noised, nothing else of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from shoal.clients.training.local_settings import LocalSettings
from shoal.clients.training.objective import LocalObjective
from shoal.clients.training.private_sgd import PrivateTrainer, poisson_batches
from shoal.clients.training.row_gradients import AnyRows, Batches, DenseRows
from shoal.clients.training.trainer import Trainer, seed_states
from shoal.common.errors import ModelError
from shoal.common.privacy.noise import SeededRandomness
from shoal.common.privacy.record import RecordPlan

FEATURES, ROWS = 4, 23
Arrays = list[np.ndarray]


class Silence:
    """No noise, and batches by a seed."""

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size, np.float32)


def draws(seed: int) -> SeededRandomness:
    return SeededRandomness(np.random.default_rng(seed))


def plan(**changes: Any) -> RecordPlan:
    given = {"noise_multiplier": 1.0, "sampling_probability": 1.0, "steps_per_round": 1, "rounds": 1}
    return RecordPlan(**{**given, "delta": 1e-5, "budget": 8.0, "accountant": "rdp", **changes})


def settings(**changes: Any) -> LocalSettings:
    return LocalSettings(**{"learning_rate": 0.05, "batch_size": ROWS, "dropout_seed": 3, **changes})


def compiled(*layers: Any, optimizer: Any = None, loss: str = "binary_crossentropy") -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([*layers])
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.05), loss=loss, jit_compile=False)
    return model


def mlp(*between: Any, optimizer: Any = None, activation: str = "relu") -> keras.Model:
    hidden = keras.layers.Dense(6, activation=activation, kernel_regularizer="l2")
    head = keras.layers.Dense(1, activation="sigmoid")
    return compiled(keras.Input((FEATURES,)), hidden, *between, head, optimizer=optimizer)


def no_bias() -> keras.Model:
    layers = keras.layers
    return compiled(
        keras.Input((2, 2)), layers.Flatten(), layers.Dense(5, use_bias=False), layers.ReLU(),
        layers.Dense(3), layers.Activation("softmax"), loss="sparse_categorical_crossentropy",
    )  # fmt: skip


def branched() -> keras.Model:
    inputs = keras.Input((FEATURES,))
    shared = keras.layers.Dense(FEATURES, activation="tanh")
    both = keras.layers.Add()([shared(inputs), shared(shared(inputs))])
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(both))
    model.compile(optimizer="sgd", loss="binary_crossentropy", jit_compile=False)
    return model


def with_operation() -> keras.Model:
    """A graph with an operation that is no layer: it could do anything with the rows."""
    inputs = keras.Input((FEATURES,))
    doubled = keras.layers.Dense(5, activation="tanh")(inputs) * 2
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(doubled))
    model.compile(optimizer="sgd", loss="binary_crossentropy", jit_compile=False)
    return model


def frozen() -> keras.Model:
    """Batch norm that no longer learns is a fixed scaling: nothing of a row gets into it."""
    return mlp(keras.layers.BatchNormalization(trainable=False))


def cnn() -> keras.Model:
    layers = keras.layers
    convolution = layers.Conv2D(3, 3, activation="relu", padding="same")
    head = [layers.MaxPooling2D(), layers.Flatten(), layers.Dense(3, activation="softmax")]
    return compiled(keras.Input((6, 6, 1)), convolution, *head, loss="sparse_categorical_crossentropy")


def tokens(kind: Any, count: int) -> keras.Model:
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    head = keras.layers.Dense(1, activation="sigmoid")
    return compiled(keras.Input((count,), dtype="int32"), embedding, kind(4), head)


def active() -> keras.Model:
    """A layer whose own loss depends on the row: Keras divides it by the rows of a batch, here one."""
    return mlp(keras.layers.Dense(4, activity_regularizer=keras.regularizers.L2(0.1)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "mlp": mlp,
    "softmax without bias": no_bias,
    "shared layer": branched,
    "activity regularizer": active,
    "operation": with_operation,
    "frozen batch norm": frozen,
    "layer norm": lambda: mlp(keras.layers.LayerNormalization()),
    "cnn": cnn,
    "embedding": lambda: tokens(lambda units: keras.layers.GlobalAveragePooling1D(), 7),
    "lstm": lambda: tokens(keras.layers.LSTM, 6),
    "gru": lambda: tokens(keras.layers.GRU, 6),
    "gru with a loop": lambda: tokens(keras.layers.GRU, 6),
}
DENSE = {"mlp", "softmax without bias"}


def rows_for(model: keras.Model, rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape, outputs = model.input_shape[1:], model.output_shape[-1]
    integers = model.inputs[0].dtype == "int32"
    x = rng.integers(0, 9, (rows, *shape), np.int32) if integers else rng.normal(size=(rows, *shape))
    return x if integers else x.astype(np.float32), rng.integers(0, max(2, outputs), rows).astype(np.int32)


def slow_sum(model: keras.Model, x: Any, y: Any, clip: float, weight: Any = None) -> tuple[Arrays, Arrays]:
    """Return the sum of clipped gradients, and their norms: one row at a time, by the book."""
    total = [np.zeros(v.shape) for v in model.trainable_variables]
    norms = []
    for k in range(len(y)):
        with tf.GradientTape() as tape:
            predicted = model(x[k : k + 1], training=True)
            w = None if weight is None else weight[k : k + 1]
            loss = model.compute_loss(x=None, y=y[k : k + 1], y_pred=predicted, sample_weight=w)
            loss -= sum(model._get_regularization_losses())
        variables = [v.value for v in model.trainable_variables]
        found = [tf.convert_to_tensor(g).numpy().astype(np.float64) for g in tape.gradient(loss, variables)]
        norms.append(np.sqrt(sum((g**2).sum() for g in found)))
        total = [t + g * min(1, clip / norms[-1]) for t, g in zip(total, found, strict=True)]
    return total, norms


def summer(
    model: keras.Model, x: Any, y: Any, clip: float, weight: Any = None, at_once: int = 256
) -> Callable[[Any], Arrays]:
    """Return the function under test, of the rows to take."""
    seeds = seed_states(model)
    kind = DenseRows(model, clip) if DenseRows.fits(model) else AnyRows(model, seeds, clip, at_once)
    w = None if weight is None else tf.constant(weight)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int32)])
    def run(order: tf.Tensor) -> list[tf.Tensor]:
        batches = Batches(tf.constant(x), tf.constant(y), w, order, tf.constant(5), tf.constant(3))
        return kind.clipped_sum(batches, tf.constant(0), tf.shape(order)[0])

    return lambda rows: [g.numpy() for g in run(tf.constant(rows, tf.int32))]


@pytest.mark.parametrize(
    ("name", "weighted"),
    [*((name, False) for name in MODELS), ("mlp", True), ("cnn", True), ("gru with a loop", True)],
)
def test_equals_one_row_at_a_time(name: str, weighted: bool) -> None:
    """Nine rows, four at once where rows' gradients are made: 4, 4 and 1; half of the rows are clipped."""
    model = MODELS[name]()
    if name != "gru with a loop":
        Trainer(model)  # makes short recurrent layers straight graphs
    assert DenseRows.fits(model) == (name in DENSE)
    x, y = rows_for(model, 9)
    weight = np.array([0.5, 2.0, 1.0], np.float32)[y] if weighted else None
    clip = float(np.median(slow_sum(model, x, y, 1.0, weight)[1]))
    wanted, norms = slow_sum(model, x, y, clip, weight)
    assert min(norms) < clip < max(norms)
    found = summer(model, x, y, clip, weight, at_once=4)
    for a, b in zip(found(range(9)), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * clip)
    assert all(not g.any() for g in found([]))


@pytest.mark.parametrize("name", ["mlp", "layer norm", "embedding"])
def test_one_row_more_moves_the_sum_by_at_most_the_clip_norm(name: str) -> None:
    """The sensitivity that the noise is scaled to; all rows have ten times as large gradients, or more."""
    model = MODELS[name]()
    x, y = rows_for(model, 12)
    clip = min(slow_sum(model, x, y, 1.0)[1]) / 10
    found = summer(model, x, y, clip)
    whole = found(range(12))
    for left_out in range(12):
        less = found([k for k in range(12) if k != left_out])
        moved = np.sqrt(
            sum(((a - b).astype(np.float64) ** 2).sum() for a, b in zip(whole, less, strict=True))
        )
        assert moved == pytest.approx(clip, rel=1e-3)  # each row was clipped: it moves the sum by just that


@pytest.mark.parametrize(
    "optimizer",
    [lambda: keras.optimizers.SGD(0.05, momentum=0.9), lambda: keras.optimizers.Adam(0.05)],
    ids=["momentum", "adam"],
)
@pytest.mark.parametrize("between", [(), (keras.layers.LayerNormalization,)], ids=["dense", "any"])
def test_without_clipping_and_noise_it_is_plain_training(optimizer: Any, between: Any) -> None:
    """With every row in every step: 3 epochs of one full batch, regularizer and proximal term included."""
    layers = [kind() for kind in between]
    trainer = Trainer(mlp(*layers, optimizer=optimizer()))
    start = [w.copy() for w in trainer.model.get_weights()]
    x, y = rows_for(trainer.model)
    chosen = settings(epochs=3, class_weights=(0.5, 2.0))
    wanted, _, steps = trainer.train(start, x, y, chosen, np.random.default_rng(0), LocalObjective(0.3))
    private = PrivateTrainer(trainer, 1e6, 8)
    all_rows = plan(steps_per_round=3)
    found, taken = private.train(start, x, y, chosen, all_rows, Silence(), draws(0), LocalObjective(0.3))  # type: ignore[arg-type]
    assert taken == steps == 3
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("between", [(), (keras.layers.LayerNormalization,)], ids=["dense", "any"])
def test_the_objective_is_neither_clipped_nor_noised(between: Any) -> None:
    """Rows clipped to nothing, and no noise: two steps of rate 0.05 follow l2(0.01) and the objective only,

    w ← w - 0.05 (0.02 w, in the first kernel only + 0.5 (w - anchor) + linear).
    """
    trainer = Trainer(mlp(*(kind() for kind in between)))
    start = [w.copy() for w in trainer.model.get_weights()]
    rng = np.random.default_rng(0)
    anchor, linear = ([rng.normal(size=w.shape).astype(np.float32) for w in start] for _ in range(2))
    x, y = rows_for(trainer.model)
    private, steps = PrivateTrainer(trainer, 1e-9, 8), plan(steps_per_round=2)
    objective = LocalObjective(0.5, anchor, linear)
    found, _ = private.train(start, x, y, settings(), steps, Silence(), draws(0), objective)  # type: ignore[arg-type]
    for k, (w, a, slope) in enumerate(zip(start, anchor, linear, strict=True)):
        wanted = w
        for _ in range(2):
            regularizer = 0.02 * wanted if k == 0 else 0.0
            wanted = wanted - 0.05 * (regularizer + 0.5 * (wanted - a) + slope)
        np.testing.assert_allclose(found[k], wanted, rtol=1e-5, atol=1e-6)
    plain, _ = private.train(start, x, y, settings(), steps, Silence(), draws(0))  # type: ignore[arg-type]
    np.testing.assert_allclose(plain[1], start[1], atol=1e-6)  # a bias, which nothing else moves


@pytest.mark.parametrize("name", ["cnn", "dropout", "frozen batch norm"])
def test_microbatches_change_nothing_but_the_order_of_sums(name: str) -> None:
    """The noise and each row's dropout are drawn per step and row, whatever is held at once."""
    make = {**MODELS, "dropout": lambda: mlp(keras.layers.Dropout(0.5))}[name]
    found = []
    for at_once in (5, 256):
        private = PrivateTrainer(Trainer(make()), 0.5, at_once)
        x, y = rows_for(private._model)
        chosen = plan(sampling_probability=0.4, steps_per_round=4)
        start = private._model.get_weights()
        found.append(private.train(start, x, y, settings(), chosen, draws(1), draws(2))[0])
        again = private.train(start, x, y, settings(), chosen, draws(1), draws(2))[0]
        assert all(np.array_equal(a, b) for a, b in zip(found[-1], again, strict=True))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_each_row_has_dropout_of_its_own() -> None:
    """All rows are alike; with half of the inputs dropped, alike masks would give rank 1 to the gradients."""
    model = compiled(keras.Input((8,)), keras.layers.Dropout(0.5), keras.layers.Dense(1), loss="mse")
    rows = AnyRows(model, seed_states(model), 1e9, 256)
    x, y = np.ones((2, 8), np.float32), np.full(2, 9.0, np.float32)

    @tf.function(autograph=False)
    def run(first: tf.Tensor, begin: tf.Tensor) -> list[tf.Tensor]:
        batches = Batches(tf.constant(x), tf.constant(y), None, tf.range(2), first, tf.constant(3))
        return rows.clipped_sum(batches, begin, begin + 1)

    masks = [run(tf.constant(f), tf.constant(b))[0].numpy().ravel() != 0 for f, b in ((0, 0), (0, 1), (7, 0))]
    assert not np.array_equal(masks[0], masks[1])  # another row
    assert not np.array_equal(masks[0], masks[2])  # another step
    again = run(tf.constant(0), tf.constant(0))[0].numpy().ravel() != 0
    assert np.array_equal(masks[0], again)


def still(units: int = 2000) -> keras.Model:
    """All gradients are zero where inputs, labels and weights are."""
    layer = keras.layers.Dense(units, use_bias=False)
    return compiled(keras.Input((5,)), layer, keras.layers.Dense(1, use_bias=False), loss="mse")


def test_the_noise_has_the_promised_size_and_shape() -> None:
    """SGD with rate 1 moves by noise / expected batch size, of deviation z C / (q n) = 3 · 0.5 / (0.25 · 40).

    With n = 12,000 numbers the sample deviation of N(0, σ²) has a standard error of σ / √(2n) = 0.65 %, its
    mean one of σ / √n; five of each are allowed (a chance of 6e-7). The test of Kolmogorov and Smirnov is for
    the shape.
    """
    model = still()
    private = PrivateTrainer(Trainer(model), 0.5, 256)
    start = [np.zeros(w.shape, np.float32) for w in model.get_weights()]
    x, y = np.zeros((40, 5), np.float32), np.zeros(40, np.float32)
    chosen = plan(noise_multiplier=3.0, sampling_probability=0.25)
    new, _ = private.train(start, x, y, settings(learning_rate=1.0), chosen, draws(5), draws(6))
    moved = np.concatenate([w.ravel() for w in new])
    sigma = 3 * 0.5 / 10
    assert len(moved) == 12_000
    assert abs(moved.std() / sigma - 1) < 5 / np.sqrt(2 * len(moved))
    assert abs(moved.mean()) < 5 * sigma / np.sqrt(len(moved))
    assert stats.kstest(moved / sigma, "norm").pvalue > 1e-4


def test_the_noise_is_fresh_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over s steps deviations add as √s; the same noise again would add as s. Blocks go on drawing."""
    model = still()
    x, y = np.zeros((40, 5), np.float32), np.zeros(40, np.float32)
    found = []
    for block in (1 << 22, 12_000 * 3):  # all 16 steps at once, and three at a time
        monkeypatch.setattr("shoal.clients.training.private_sgd._NOISE_NUMBERS", block)
        private = PrivateTrainer(Trainer(model), 0.5, 256)
        start = [np.zeros(w.shape, np.float32) for w in model.get_weights()]
        chosen = plan(noise_multiplier=3.0, sampling_probability=0.25, steps_per_round=16)
        new, _ = private.train(start, x, y, settings(learning_rate=1e-3), chosen, draws(5), draws(6))
        found.append(np.concatenate([w.ravel() for w in new]))
    assert np.array_equal(found[0], found[1])
    sigma = 1e-3 * 3 * 0.5 / 10 * np.sqrt(16)
    assert abs(found[0].std() / sigma - 1) < 5 / np.sqrt(2 * 12_000)


@pytest.mark.parametrize("between", [(), (keras.layers.LayerNormalization,)], ids=["dense", "any"])
def test_an_empty_batch_is_noise_alone(between: Any) -> None:
    """With a probability of 1e-9 no batch has a row: the step is the noise and the regularizer's gradient.

    SGD with rate r: w - r (z C / (q n) ξ + 2 · 0.01 w) for Keras' "l2" on the first kernel.
    """
    model = mlp(*(kind() for kind in between))
    private = PrivateTrainer(Trainer(model), 1.0, 256)
    start = [w.copy() for w in model.get_weights()]
    x, y = rows_for(model)
    chosen = plan(sampling_probability=1e-9, noise_multiplier=1e-9)
    new, steps = private.train(start, x, y, settings(), chosen, draws(1), draws(2))
    noise = draws(1).normal(sum(w.size for w in start))
    assert steps == 1
    scale = 1e-9 / (1e-9 * ROWS)
    drawn = np.split(noise, np.cumsum([w.size for w in start])[:-1])
    for k, (w, z) in enumerate(zip(start, drawn, strict=True)):
        gradient = scale * z.reshape(w.shape) + (0.02 * w if k == 0 else 0)
        np.testing.assert_allclose(new[k], w - 0.05 * gradient, rtol=1e-4, atol=1e-6)


def test_poisson_batches_take_each_row_with_its_probability() -> None:
    """80 rows, 5,000 steps, q = 0.1: counts of a row and sizes of a batch are binomial.

    A row is taken Binomial(5000, 0.1) times: 500 with deviation 21.2; over 80 rows none is 5 deviations off.
    Sizes have mean 8, variance 7.2, standard errors √(7.2 / 5000) = 0.038 and about 7.2 √(2 / 5000) = 0.144.
    Neighbouring steps and rows are independent: their covariances are 0 within 5 standard errors
    q (1 - q) / √(pairs).
    """
    order, bounds = poisson_batches(80, 5000, 0.1, draws(1))
    sizes = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == len(order)
    assert (np.abs(np.bincount(order, minlength=80) - 500) < 5 * 21.2).all()
    assert abs(sizes.mean() - 8) < 5 * 0.038
    assert abs(sizes.var() - 7.2) < 5 * 0.144
    taken = np.zeros((5000, 80))
    taken[np.repeat(np.arange(5000), sizes), order] = 1
    assert taken.sum() == len(order)  # no row twice in a batch
    off = taken - 0.1
    for a, b in ((off[:-1], off[1:]), (off[:, :-1], off[:, 1:])):
        assert abs((a * b).mean()) < 5 * 0.09 / np.sqrt(a.size)


def test_poisson_batches_at_the_edges() -> None:
    order, bounds = poisson_batches(3, 2, 1.0, draws(1))
    assert order.tolist() == [0, 1, 2, 0, 1, 2]
    assert bounds.tolist() == [0, 3, 6]
    order, bounds = poisson_batches(1000, 50, 1e-12, draws(1))
    assert len(order) == 0
    assert bounds.tolist() == [0] * 51


def test_one_graph_serves_clients_of_any_size() -> None:
    private = PrivateTrainer(Trainer(mlp()), 1.0, 256)
    start = private._model.get_weights()
    for rows in (5, 23, 64):
        x, y = rows_for(private._model, rows, seed=rows)
        private.train(start, x, y, settings(), plan(sampling_probability=0.3), draws(1), draws(2))
    assert private.traces == 1


class OwnStep(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.head(inputs)

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def own_step() -> keras.Model:
    model = OwnStep()
    model(np.zeros((1, FEATURES), np.float32))
    model.compile(optimizer="sgd", loss="binary_crossentropy", jit_compile=False)
    return model


def half() -> keras.Model:
    return mlp(keras.layers.Dense(3, dtype="mixed_bfloat16"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: mlp(keras.layers.BatchNormalization(name="bn")), r"bn/moving_mean.*batch norm"),
        (own_step, "has its own train_step or compute_loss"),
        (half, "mixed_bfloat16"),
    ],
    ids=["batch norm", "own train_step", "mixed precision"],
)
def test_models_that_cannot_be_divided_into_rows_are_refused(make: Any, said: str) -> None:
    model = make()
    private = PrivateTrainer(Trainer(model), 1.0, 256)
    start = [w.copy() for w in model.get_weights()]
    x = np.ones((5, FEATURES), np.float32)
    with pytest.raises(ModelError, match=said):
        private.train(start, x, np.zeros(5, np.int32), settings(), plan(), draws(1), draws(2))
    assert all(np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True))


@pytest.mark.parametrize("kind", ["any", "dense"])
def test_a_row_whose_gradient_overflows_counts_as_zero(kind: str) -> None:
    """With x = 1e38 a gradient, or its square, overflows float32; the other rows still count."""
    model = mlp()
    rows = AnyRows(model, [], 1.0, 4) if kind == "any" else DenseRows(model, 1.0)
    x = np.random.default_rng(0).normal(size=(5, FEATURES)).astype(np.float32)
    y = np.array([0, 1, 0, 1, 1], np.float32)

    def total(inputs: np.ndarray, order: list[int]) -> list[np.ndarray]:
        batches = Batches(
            *map(tf.constant, (inputs, y)), None, tf.constant(order), tf.constant(0), tf.constant(1)
        )
        return [g.numpy() for g in rows.clipped_sum(batches, tf.constant(0), tf.constant(len(order)))]

    for value in (1e38, np.inf, np.nan):
        spoilt = x.copy()
        spoilt[2] = value
        for got, wanted in zip(total(spoilt, [0, 1, 2, 3]), total(x, [0, 1, 3]), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
