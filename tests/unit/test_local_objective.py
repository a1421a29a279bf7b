"""Objectives take the steps of their formula, one client after another and in stacks.

The clients of the closed forms fit a line: loss mean((X w + b - y)²) over n rows, every step over all rows.
So a step is written out in numpy, with the gradients

    2/n Xᵀ (X w + b - y) + mu (w - anchor) + linear    by w, and
    2/n Σ (X w + b - y)  + mu (b - anchor) + linear    by b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from shoal.clients.training.local_settings import LocalSettings, LocalTask
from shoal.clients.training.objective import LocalObjective
from shoal.clients.training.stacked import StackedTrainer
from shoal.clients.training.trainer import Trainer

FEATURES, RATE = 3, 0.05
SIZES = (9, 4, 9, 6)  # rows of the clients; two have as many
CLIENTS = len(SIZES)
Weights = list[np.ndarray]
Shapes = list[tuple[int, ...]]


class Trainers(NamedTuple):
    model: keras.Model
    alone: Trainer
    stacked: StackedTrainer

    @property
    def shapes(self) -> Shapes:
        """Of the weights, which are all trainable here."""
        return [tuple(v.shape) for v in self.model.weights]


def trainers(*layers: keras.layers.Layer, loss: str) -> Trainers:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss)
    return Trainers(model, Trainer(model), StackedTrainer(model))


@pytest.fixture(scope="module")
def lines() -> Trainers:
    return trainers(keras.layers.Dense(1), loss="mse")


@pytest.fixture(scope="module")
def networks() -> Trainers:
    hidden = keras.layers.Dense(6, activation="relu", kernel_regularizer="l2")
    head = keras.layers.Dense(1, activation="sigmoid")
    return trainers(hidden, keras.layers.Dropout(0.4), head, loss="binary_crossentropy")


def tasks(sizes: Sequence[int] = SIZES, **changes: Any) -> list[LocalTask]:
    found = []
    for client, rows in enumerate(sizes):
        rng = np.random.default_rng(client)
        x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
        y = (x.sum(axis=1) > 0).astype(np.int32)
        given = {"learning_rate": RATE, "batch_size": max(sizes), "epochs": 5, "dropout_seed": client}
        settings = LocalSettings(**{**given, **changes})
        found.append(LocalTask(x, y, settings, np.random.default_rng(100 + client)))
    return found


def drawn(shapes: Shapes, seed: int, *, each: bool) -> Weights:
    """Draw weights, or with `each` weights for each client."""
    rng = np.random.default_rng(seed)
    axis = (CLIENTS,) if each else ()
    return [rng.normal(size=axis + shape).astype(np.float32) for shape in shapes]


def of_client(arrays: Sequence[np.ndarray], shapes: Shapes, k: int) -> Weights:
    return [a if a.shape == shape else a[k] for a, shape in zip(arrays, shapes, strict=True)]


def objective_of_client(objective: LocalObjective, shapes: Shapes, k: int) -> LocalObjective:
    mu = np.broadcast_to(objective.mu, CLIENTS)[k]
    parts = {"anchor": objective.anchor, "linear": objective.linear}
    return LocalObjective(mu, **{n: p if p is None else of_client(p, shapes, k) for n, p in parts.items()})


Trained = tuple[list[Weights], list[float]]  # weights and loss of each client


def one_by_one(used: Trainers, start: Weights, work: list[LocalTask], objective: LocalObjective) -> Trained:
    found = []
    for k, one in enumerate(work):
        given = of_client(start, used.shapes, k), one.x, one.y, one.settings, one.rng
        found.append(used.alone.train(*given, objective_of_client(objective, used.shapes, k)))
    return [weights for weights, _, _ in found], [loss for _, loss, _ in found]


def in_a_stack(used: Trainers, start: Weights, work: list[LocalTask], objective: LocalObjective) -> Trained:
    stack = used.stacked.train(start, work, objective)
    return [[w[k] for w in stack.weights] for k in range(len(work))], list(stack.losses)


MODES = {"sequential": one_by_one, "stacked": in_a_stack}
EACH, SHARED = True, False
# Which start, mu, and parts of the objective; what each client has its own of.
CASES: dict[str, tuple[bool, Any, dict[str, bool]]] = {
    "plain": (SHARED, 0, {}),
    "plain, own starts": (EACH, 0, {}),
    "FedProx": (SHARED, 0.7, {}),
    "FedProx, own starts": (EACH, 0.7, {}),
    "own mu, one of them 0": (SHARED, np.array([0.7, 0.0, 0.2, 1.5]), {}),
    "Ditto": (EACH, 0.7, {"anchor": SHARED}),
    "own anchors": (SHARED, 0.7, {"anchor": EACH}),
    "shared linear": (SHARED, 0, {"linear": SHARED}),
    "SCAFFOLD": (SHARED, 0, {"linear": EACH}),
    "FedDyn": (SHARED, 0.7, {"linear": EACH}),
    "everything": (EACH, np.array([0.7, 0.0, 0.2, 1.5]), {"anchor": EACH, "linear": EACH}),
}


def case(shapes: Shapes, name: str) -> tuple[Weights, LocalObjective]:
    start, mu, parts = CASES[name]
    arrays = {part: drawn(shapes, 2 + len(part), each=each) for part, each in parts.items()}
    return drawn(shapes, 1, each=start), LocalObjective(mu, **arrays)


def by_hand(start: Weights, task: LocalTask, objective: LocalObjective) -> tuple[Weights, float]:
    """Return a client's weights after all steps, and the mean of the losses before each step."""
    x, y = task.x.astype(np.float64), task.y
    first = [w.astype(np.float64) for w in start]
    anchor = first if objective.anchor is None else objective.anchor
    linear = [0.0, 0.0] if objective.linear is None else objective.linear
    weights, losses = first, []
    for _ in range(task.settings.epochs):
        off = x @ weights[0][:, 0] + weights[1] - y
        slopes = [2 / len(y) * x.T @ off[:, None], 2 / len(y) * off.sum(keepdims=True)]
        moves = [w - a for w, a in zip(weights, anchor, strict=True)]
        losses.append((off**2).mean() + objective.mu / 2 * sum((move**2).sum() for move in moves))
        terms = zip(weights, slopes, moves, linear, strict=True)
        weights = [w - RATE * (slope + objective.mu * move + add) for w, slope, move, add in terms]
    return weights, float(np.mean(losses))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_written_out_by_hand(lines: Trainers, mode: str, name: str) -> None:
    start, objective = case(lines.shapes, name)
    found, losses = MODES[mode](lines, start, tasks(), objective)
    for k, task in enumerate(tasks()):
        own = objective_of_client(objective, lines.shapes, k)
        wanted, loss = by_hand(of_client(start, lines.shapes, k), task, own)
        for a, b in zip(found[k], wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
        assert losses[k] == pytest.approx(loss, rel=5e-6)


@pytest.mark.parametrize("mode", MODES)
def test_ideal_control_variates_hold_clients_at_the_common_optimum(lines: Trainers, mode: str) -> None:
    """With linear = -∇F_k(w*) each client's gradient at the common optimum w* is 0, and none drifts away.

    This is SCAFFOLD with c = ∇F(w*) = 0 and c_k = ∇F_k(w*), where
    ∇F_k(w*) = 2/n Zᵀ (Z w* - y) with Z = [X, 1].
    """
    design = [np.column_stack([task.x, np.ones(len(task.y))]) for task in tasks()]
    labels = [task.y for task in tasks()]
    best = np.linalg.lstsq(np.concatenate(design), np.concatenate(labels), rcond=None)[0]
    slopes = np.stack([2 / len(y) * z.T @ (z @ best - y) for z, y in zip(design, labels, strict=True)])
    start = [best[:-1, None].astype(np.float32), best[-1:].astype(np.float32)]
    linear = [-slopes[:, :-1, None], -slopes[:, -1:]]
    held, _ = MODES[mode](lines, start, tasks(), LocalObjective(linear=linear))
    free, _ = MODES[mode](lines, start, tasks(), LocalObjective())
    for k in range(CLIENTS):
        np.testing.assert_allclose(held[k][0], start[0], atol=1e-6)
        assert np.abs(free[k][0] - start[0]).max() > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_a_stack_equals_one_by_one(networks: Trainers, name: str) -> None:
    """In batches of 5, so that a client of 2 rows stops early; with dropout, and weights of the classes."""

    def work() -> list[LocalTask]:
        return tasks([23, 2, 10, 23], batch_size=5, epochs=2, class_weights=(0.5, 2.0))

    start, objective = case(networks.shapes, name)
    together, losses = in_a_stack(networks, start, work(), objective)
    apart, expected_losses = one_by_one(networks, start, work(), objective)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for found, expected in zip(together, apart, strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_linear_term_has_no_part_in_the_reported_loss(lines: Trainers, mode: str) -> None:
    """One step, so that the loss is that at the start, whatever the slope, here of about 10⁴."""
    start, _ = case(lines.shapes, "plain")
    steep = LocalObjective(linear=[np.full(shape, 1e4) for shape in lines.shapes])
    wanted = MODES[mode](lines, start, tasks(epochs=1), LocalObjective())[1]
    assert MODES[mode](lines, start, tasks(epochs=1), steep)[1] == wanted


@pytest.mark.parametrize("mode", MODES)
def test_arguments_are_not_mutated(networks: Trainers, mode: str) -> None:
    start, objective = case(networks.shapes, "everything")
    arrays = [*start, *objective.anchor, *objective.linear]  # type: ignore[misc]
    before = [array.copy() for array in arrays]
    MODES[mode](networks, start, tasks(), objective)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"linear": [np.zeros((3, 1))]}, "objective.linear has 1 arrays; the model has 2 such weights"),
        ({"mu": 1, "anchor": [np.zeros((1, 3)), np.zeros(1)]}, r"objective.anchor\[0\] has shape \(1, 3\)"),
        ({"mu": 1, "anchor": [np.zeros((3, 3, 1)), np.zeros(1)]}, r"objective.anchor\[0\] has shape"),
        ({"mu": np.ones(3)}, r"objective.mu\[0\] has shape \(3,\)"),
    ],
)
def test_wrong_shapes_are_refused(lines: Trainers, mode: str, parts: dict[str, Any], said: str) -> None:
    """Three clients' arrays are too few for a stack of four, and too many for one client."""
    start, _ = case(lines.shapes, "plain")
    objective = LocalObjective(**parts)
    work = tasks()

    def alone() -> None:
        lines.alone.train(start, work[0].x, work[0].y, work[0].settings, work[0].rng, objective)

    def together() -> None:
        lines.stacked.train(start, work, objective)

    with pytest.raises(ValueError, match=said):
        {"sequential": alone, "stacked": together}[mode]()


@pytest.mark.parametrize("mu", [-0.1, np.nan, np.inf, np.array([0.1, -0.1])])
def test_mu_is_finite_and_not_negative(mu: Any) -> None:
    with pytest.raises(ValueError, match="mu must be finite and at least 0"):
        LocalObjective(mu)
