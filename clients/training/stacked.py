"""Local training of many clients at once: weights, rows and steps have a leading client axis.

A small model spends its time in the overhead of operations, not in arithmetic. Here one operation
serves a whole stack of clients: `tf.vectorized_map` computes the gradient of each client's batch at that
client's own weights. Shards of unequal size are evened out by weights of zero, and a client that has
done all its steps stands still. What is computed is what `clients/training/trainer.py` computes, up to the
order of float sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shoal.clients.training.local_settings import LocalTask, batch_plan
from shoal.clients.training.stacked_optimizers import stacked_optimizer
from shoal.clients.training.trainer import seed_states
from shoal.common.profiling import span

Arrays = Sequence[NDArray[Any]]

# What vectorises well. A convolution becomes a grouped one, which is slower than one client after
# another; a recurrent layer is a loop, which does not vectorise; batch norm would count padding.
LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Embedding,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.Softmax,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.LayerNormalization,
    keras.layers.Rescaling,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.Concatenate,
    keras.layers.Add,
    keras.layers.Multiply,
    keras.layers.Average,
)


def why_not(model: keras.Model) -> str:
    """Return why a compiled model cannot be trained stacked, or "" if it can."""
    own = type(model)
    if own.train_step is not keras.Model.train_step or own.compute_loss is not keras.Model.compute_loss:
        return "the model has a train_step or compute_loss of its own"
    for layer in model._flatten_layers(include_self=False):
        if type(layer) not in LAYERS and not isinstance(layer, keras.Operation | keras.losses.Loss):
            return f"{type(layer).__name__} layers are not stacked"
        if isinstance(layer, keras.Layer) and type(layer) not in LAYERS and layer.weights:
            return f"{type(layer).__name__} layers are not stacked"
        if isinstance(layer, keras.Layer) and layer.dtype_policy.name != "float32":
            return f"{layer.dtype_policy.name} is not stacked"
    optimizer = stacked_optimizer(model.optimizer)
    name = type(model.optimizer).__name__
    if optimizer is None:
        return f"{name} with these arguments is not stacked"
    embedded = any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers())
    if optimizer.slots and embedded:
        # Keras moves only the rows of the batch then; a stack has dense gradients and would move all.
        return f"{name} treats the sparse gradients of an Embedding in a way of its own"
    return ""


# Leading axes of each argument that differ from stack to stack: x, y, rows, weight, counts, seeds, rate, mu.
_FREE = (1, 1, 3, 3, 2, 1, 0, 0)


@dataclass(frozen=True, slots=True)
class Stack:
    """What a stack of clients has learnt.

    Attributes:
        weights: in the order of `keras.Model.get_weights`, each (clients, ...).
        losses: mean training loss over rows, (clients,); steps: optimisation steps, (clients,).
    """

    weights: list[NDArray[Any]]
    losses: NDArray[np.float64]
    steps: NDArray[np.int64]


class StackedTrainer:
    """Trains stacks of clients with the layers, loss and optimizer of one compiled model.

    The model gives structure only; its weights are not touched.
    """

    def __init__(self, model: keras.Model) -> None:
        """Take a compiled model for which `why_not` has no objection."""
        optimizer = stacked_optimizer(model.optimizer)
        if optimizer is None:
            raise ValueError(why_not(model))
        self._model = model
        self._optimizer = optimizer
        self._seeds = seed_states(model)
        self._compiled: dict[int, Any] = {}
        self.traces = 0

    @span("train")
    def train(self, weights: Arrays, clients: Sequence[LocalTask]) -> Stack:
        """Train clients from the same weights.

        Args:
            weights: in the order of `keras.Model.get_weights`.
            clients: at least one; learning rate and proximal mu are the first one's.
        """
        settings = clients[0].settings
        rows, weight, counts = _plan(clients)
        numbers = range(len(self._seeds))
        seeds = np.array([[(c.settings.dropout_seed, k) for k in numbers] for c in clients], np.uint32)
        arrays: list[Any] = [
            np.concatenate([c.x for c in clients]),
            np.concatenate([c.y for c in clients]),
            rows,
            weight,
            counts,
            seeds.reshape(len(clients), len(self._seeds), 2),
            np.float32(settings.learning_rate),
        ]
        if settings.proximal_mu:
            arrays.append(np.float32(settings.proximal_mu))
        tensors = [tf.convert_to_tensor(array) for array in arrays]
        if len(tensors) not in self._compiled:
            free = [
                tf.TensorSpec([None] * _FREE[k] + t.shape[_FREE[k] :], t.dtype) for k, t in enumerate(tensors)
            ]
            start = [tf.TensorSpec(w.shape, w.dtype) for w in weights]
            self._compiled[len(tensors)] = tf.function(
                self._all_steps, input_signature=[start, *free], autograph=False
            )
        trained, losses = self._compiled[len(tensors)]([tf.convert_to_tensor(w) for w in weights], *tensors)
        steps = np.count_nonzero(counts, axis=0)
        return Stack([t.numpy() for t in trained], losses.numpy().astype(np.float64), steps)

    def _all_steps(
        self,
        start: list[tf.Tensor],
        x: tf.Tensor,
        y: tf.Tensor,
        rows: tf.Tensor,
        weight: tf.Tensor,
        counts: tf.Tensor,
        seeds: tf.Tensor,
        rate: tf.Tensor,
        mu: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Run all steps of all clients; with the proximal term of `objective.py` if mu is given."""
        self.traces += 1
        clients = tf.shape(rows)[1]
        trainable, frozen = self._divide(start)
        weights = [tf.repeat(w[None], clients, axis=0) for w in trainable]
        slots = [tf.zeros_like(w) for _ in range(self._optimizer.slots) for w in weights]

        def train_step(
            step: tf.Tensor,
            weights: list[tf.Tensor],
            slots: list[tf.Tensor],
            losses: tf.Tensor,
            seeds: tf.Tensor,
        ) -> tuple[Any, ...]:
            batch = rows[step]
            gradients, loss, seeds = tf.vectorized_map(
                lambda part: self._gradient(frozen, *part),
                (weights, tf.gather(x, batch), tf.gather(y, batch), weight[step], seeds),
            )
            if mu is not None:
                moves = [w - w0 for w, w0 in zip(weights, trainable, strict=True)]
                gradients = [g + mu * move for g, move in zip(gradients, moves, strict=True)]
                loss += mu / 2 * tf.add_n([_sum_of_squares(move) for move in moves])
            moved, slots = self._optimizer.step(weights, gradients, slots, rate, step + 1)
            active = counts[step] > 0
            weights = [_where(active, new, old) for new, old in zip(moved, weights, strict=True)]
            losses += tf.where(active, loss * tf.cast(counts[step], tf.float32), 0.0)
            return step + 1, weights, slots, losses, seeds

        steps = tf.shape(rows)[0]
        begin = [tf.constant(0), weights, slots, tf.zeros([clients]), seeds]
        _, weights, _, losses, _ = tf.while_loop(lambda step, *_: step < steps, train_step, begin)
        total = tf.cast(tf.reduce_sum(counts, axis=0), tf.float32)
        return self._join(weights, frozen, clients), losses / total

    def _gradient(
        self,
        frozen: dict[int, tf.Tensor],
        weights: list[tf.Tensor],
        x: tf.Tensor,
        y: tf.Tensor,
        weight: tf.Tensor,
        seeds: tf.Tensor,
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Return one client's gradient, loss and next seeds; `vectorized_map` makes them all clients'."""
        others = self._model.non_trainable_variables
        values = frozen | {id(v): seeds[k] for k, v in enumerate(self._seeds)}
        with tf.GradientTape() as tape:
            tape.watch(weights)
            predicted, after, extra = self._model.stateless_call(
                weights, [values[id(v)] for v in others], x, training=True, return_losses=True
            )
            loss = tf.add_n([self._model._compile_loss(y, predicted, weight), *extra])
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        moved = {id(v): value for v, value in zip(others, after, strict=True)}
        drawn = tf.stack([tf.cast(moved[id(v)], tf.uint32) for v in self._seeds]) if self._seeds else seeds
        return [tf.convert_to_tensor(g) for g in gradients], loss, drawn

    def _divide(self, start: list[tf.Tensor]) -> tuple[list[tf.Tensor], dict[int, tf.Tensor]]:
        """Divide weights in the order of `get_weights` into trainable and, by variable, other ones."""
        by_id = {id(v): w for v, w in zip(self._model.weights, start, strict=True)}
        trainable = [by_id.pop(id(v)) for v in self._model.trainable_variables]
        return trainable, by_id

    def _join(
        self, weights: list[tf.Tensor], frozen: dict[int, tf.Tensor], clients: tf.Tensor
    ) -> list[tf.Tensor]:
        """Put stacked weights back into the order of `get_weights`."""
        by_id = {id(v): w for v, w in zip(self._model.trainable_variables, weights, strict=True)}
        by_id |= {key: tf.repeat(value[None], clients, axis=0) for key, value in frozen.items()}
        return [by_id[id(v)] for v in self._model.weights]


def _plan(
    clients: Sequence[LocalTask],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Plan the batches of all clients, as (steps, clients, batch size) arrays.

    Returns:
        rows: indices into the concatenated rows of all clients; 0 where a batch has fewer rows.
        weight: of each row in the batch's mean loss, which Keras divides by the batch size; so a row of
            a batch of n rows weighs batch size / n, times its class weight; 0 where there is no row.
        counts: rows of each batch, (steps, clients); 0 once a client is done.
    """
    plans = [batch_plan(len(c.y), c.settings, c.rng) for c in clients]
    steps = max(len(bounds) for _, bounds in plans) - 1
    size = max(int(np.diff(bounds).max()) for _, bounds in plans)
    rows = np.zeros((steps, len(clients), size), np.int32)
    weight = np.zeros(rows.shape, np.float32)
    counts = np.zeros(rows.shape[:2], np.int32)
    first = np.cumsum([0, *(len(c.y) for c in clients)])
    alike: dict[int, list[int]] = {}  # clients with as many rows have the same batches but for their order
    for k, client in enumerate(clients):
        alike.setdefault(len(client.y), []).append(k)
    for members in alike.values():
        sizes = np.diff(plans[members[0]][1])
        there = np.broadcast_to(np.arange(size) < sizes[:, None], (len(members), len(sizes), size))
        share = np.tile(np.repeat((size / sizes).astype(np.float32), sizes), (len(members), 1))
        for own, k in zip(share, members, strict=True):
            class_weights = clients[k].settings.class_weights
            if class_weights is not None:
                own *= np.asarray(class_weights, np.float32)[clients[k].y[plans[k][0]]]
        counts[: len(sizes), members] = sizes[:, None]
        orders = np.stack([plans[k][0] + first[k] for k in members])
        rows[: len(sizes), members] = _spread(orders, there)
        weight[: len(sizes), members] = _spread(share, there)
    return rows, weight, counts


def _spread(values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[Any]:
    """Put each client's values (clients, rows) where batches have rows; (steps, clients, batch size)."""
    spread = np.zeros(there.shape, values.dtype)
    spread[there] = values.reshape(-1)
    return spread.swapaxes(0, 1)


def _sum_of_squares(stacked: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(stacked), axis=list(range(1, len(stacked.shape))))


def _where(active: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(active, [-1, *[1] * (len(new.shape) - 1)]), new, old)
