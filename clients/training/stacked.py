"""Local training of many clients at once: weights, rows and steps have a leading client axis.

For a small model, the overhead of operations exceeds the arithmetic. Here one operation serves a whole
stack of clients: `tf.vectorized_map` computes the gradient of each client's batch at that client's own
weights, which may differ from the start. Shards of unequal size are padded with rows of weight zero, and
a client that has done all its steps no longer changes. The results equal those of
`clients/training/trainer.py`, up to the order of float sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shoal.clients.training.local_settings import LocalTask
from shoal.clients.training.objective import Arrays, LocalObjective, shaped
from shoal.clients.training.stack_batches import FREE_AXES, StackBatches, stack_batches
from shoal.clients.training.stacked_objective import StackedObjective, stacked_objective
from shoal.clients.training.stacked_optimizers import Tensors, stacked_optimizer
from shoal.clients.training.trainer import seed_states
from shoal.common.profiling import span

# Layers that vectorise well. A convolution becomes a grouped one, which is slower than one client after
# another; a recurrent layer is a loop, which does not vectorise; batch norm would include padding.
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
    """Return why a compiled model cannot be trained in stacks; "" if it can."""
    own = type(model)
    if own.train_step is not keras.Model.train_step or own.compute_loss is not keras.Model.compute_loss:
        return "the model has its own train_step or compute_loss"
    for layer in model._flatten_layers(include_self=False):
        if type(layer) not in LAYERS and not isinstance(layer, keras.Operation | keras.losses.Loss):
            return f"{type(layer).__name__} layers cannot be stacked"
        if isinstance(layer, keras.Layer) and type(layer) not in LAYERS and layer.weights:
            return f"{type(layer).__name__} layers cannot be stacked"
        if isinstance(layer, keras.Layer) and layer.dtype_policy.name != "float32":
            return f"{layer.dtype_policy.name} cannot be stacked"
    optimizer = stacked_optimizer(model.optimizer)
    name = type(model.optimizer).__name__
    if optimizer is None:
        return f"{name} with these arguments cannot be stacked"
    embedded = any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers())
    if optimizer.slots and embedded:
        # Keras moves only the rows of the batch in that case; a stack has dense gradients and would move all.
        return f"{name} treats the sparse gradients of an Embedding differently"
    return ""


@dataclass(frozen=True, slots=True)
class Stack:
    """The result of training a stack.

    Attributes:
        weights: in the order of `keras.Model.get_weights`, each (clients, ...).
        losses: mean training loss over rows, (clients,); steps: optimisation steps, (clients,).
    """

    weights: list[NDArray[Any]]
    losses: NDArray[np.float64]
    steps: NDArray[np.int64]


class StackedTrainer:
    """Trains stacks of clients with the layers, loss and optimizer of one compiled model.

    The model provides the structure only; its weights are not changed.
    """

    def __init__(self, model: keras.Model) -> None:
        """Wrap a compiled model for which `why_not` returns ""."""
        optimizer = stacked_optimizer(model.optimizer)
        if optimizer is None:
            raise ValueError(why_not(model))
        self._model = model
        self._optimizer = optimizer
        self._seeds = seed_states(model)
        self._shapes = [tuple(v.shape) for v in model.weights]
        self._trainable_shapes = [tuple(v.shape) for v in model.trainable_variables]
        self._compiled: dict[Any, Any] = {}
        self.traces = 0

    @span("train")
    def train(
        self, weights: Arrays, clients: Sequence[LocalTask], objectives: LocalObjective | None = None
    ) -> Stack:
        """Train clients from given weights.

        Args:
            weights: in the order of `keras.Model.get_weights`. Each array, trainable or not, either has the
                shape of its weight, and all clients start from it; or it is (clients, ...), a start for each.
                So clients can share the body of a model and have their own heads.
            clients: at least one; the learning rate is the first one's.
            objectives: terms added to the model's loss, each part the same for all clients or with a leading
                client axis; `None` for none.

        Raises:
            ValueError: if the shape of weights or an objective fits neither one client nor all.
        """
        start = shaped("weights", weights, self._shapes, len(clients))
        added = stacked_objective(objectives, self._trainable_shapes, len(clients))
        batches = stack_batches(clients, len(self._seeds))
        tensors = StackBatches(*(tf.convert_to_tensor(array) for array in batches))
        arguments = [tf.convert_to_tensor(w) for w in start], tensors, added
        # A graph for each combination of terms, and of arrays with and without a client axis.
        key = tuple(w.ndim for w in start), tuple(tuple(len(t.shape) for t in part) for part in added)
        if key not in self._compiled:
            self._compiled[key] = self._compile(*arguments)
        trained, losses = self._compiled[key](*arguments)
        steps = np.count_nonzero(batches.counts, axis=0)
        return Stack([t.numpy() for t in trained], losses.numpy().astype(np.float64), steps)

    def _compile(self, start: Tensors, batches: StackBatches, added: StackedObjective) -> Any:
        """Return the compiled steps for arguments of this structure, with any number of clients and rows."""

        def specs(tensors: Tensors, shapes: Sequence[tuple[int, ...]]) -> list[tf.TensorSpec]:
            # Not strict: an absent part has no tensors.
            pairs = zip(tensors, shapes, strict=False)
            return [_spec(tensor, len(tensor.shape) - len(shape)) for tensor, shape in pairs]

        trainable = self._trainable_shapes
        signature = [
            specs(start, self._shapes),
            StackBatches(*map(_spec, batches, FREE_AXES)),
            StackedObjective(
                mu=specs(added.mu, [()]),
                anchor=specs(added.anchor, trainable),
                linear=specs(added.linear, trainable),
            ),
        ]
        return tf.function(self._all_steps, input_signature=signature, autograph=False)

    def _all_steps(
        self, start: Tensors, batches: StackBatches, added: StackedObjective
    ) -> tuple[Tensors, tf.Tensor]:
        """Run all steps of all clients; return their weights, in the order of `get_weights`, and losses."""
        self.traces += 1
        counts = batches.counts
        clients = tf.shape(counts)[1]
        trainable, frozen, personal = self._divide(start)
        variables = self._model.trainable_variables
        weights = [_stacked(w, v, clients) for w, v in zip(trainable, variables, strict=True)]
        slots = [tf.zeros_like(w) for _ in range(self._optimizer.slots) for w in weights]

        def train_step(
            step: tf.Tensor, weights: Tensors, slots: Tensors, losses: tf.Tensor, seeds: tf.Tensor
        ) -> tuple[Any, ...]:
            rows = batches.rows[step]
            x, y = tf.gather(batches.x, rows), tf.gather(batches.y, rows)
            gradients, loss, seeds = tf.vectorized_map(
                lambda part: self._gradient(frozen, *part),
                (weights, personal, x, y, batches.weight[step], seeds),
            )
            gradients, loss = added.add(weights, trainable, gradients, loss)
            moved, slots = self._optimizer.step(weights, gradients, slots, batches.rate, step + 1)
            active = counts[step] > 0
            weights = [_where(active, new, old) for new, old in zip(moved, weights, strict=True)]
            losses += tf.where(active, loss * tf.cast(counts[step], tf.float32), 0.0)
            return step + 1, weights, slots, losses, seeds

        steps = tf.shape(counts)[0]
        begin = [tf.constant(0), weights, slots, tf.zeros([clients]), batches.seeds]
        _, weights, _, losses, _ = tf.while_loop(lambda step, *_: step < steps, train_step, begin)
        total = tf.cast(tf.reduce_sum(counts, axis=0), tf.float32)
        return self._join(weights, frozen | personal, clients), losses / total

    def _gradient(
        self,
        frozen: dict[int, tf.Tensor],
        weights: Tensors,
        personal: dict[int, tf.Tensor],
        x: tf.Tensor,
        y: tf.Tensor,
        weight: tf.Tensor,
        seeds: tf.Tensor,
    ) -> tuple[Tensors, tf.Tensor, tf.Tensor]:
        """Return one client's gradient, loss and next seeds; `vectorized_map` extends it to all clients."""
        others = self._model.non_trainable_variables
        values = frozen | personal | {id(v): seeds[k] for k, v in enumerate(self._seeds)}
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

    def _divide(self, start: Tensors) -> tuple[Tensors, dict[int, tf.Tensor], dict[int, tf.Tensor]]:
        """Divide weights in the order of `get_weights`.

        Returns:
            trainable: a list; frozen: non-trainable weights that all clients share, by variable;
            personal: non-trainable weights with a client axis, by variable.
        """
        by_id = {id(v): w for v, w in zip(self._model.weights, start, strict=True)}
        trainable = [by_id.pop(id(v)) for v in self._model.trainable_variables]
        apart = {id(v) for v, w in zip(self._model.weights, start, strict=True) if _has_client_axis(w, v)}
        frozen = {key: w for key, w in by_id.items() if key not in apart}
        return trainable, frozen, {key: w for key, w in by_id.items() if key in apart}

    def _join(self, weights: Tensors, frozen: dict[int, tf.Tensor], clients: tf.Tensor) -> Tensors:
        """Put trained and frozen weights back into the order of `get_weights`, all with a client axis."""
        trained = {id(v): w for v, w in zip(self._model.trainable_variables, weights, strict=True)}
        by_id = frozen | trained
        return [_stacked(by_id[id(v)], v, clients) for v in self._model.weights]


def _stacked(weight: tf.Tensor, variable: keras.Variable, clients: tf.Tensor) -> tf.Tensor:
    """Return a weight with a client axis, added if missing."""
    return weight if _has_client_axis(weight, variable) else tf.repeat(weight[None], clients, axis=0)


def _has_client_axis(weight: tf.Tensor, variable: keras.Variable) -> bool:
    return len(weight.shape) > len(variable.shape)


def _spec(tensor: tf.Tensor, free: int) -> tf.TensorSpec:
    """Return the spec of a compiled function's input: like this tensor, with leading axes of any length."""
    return tf.TensorSpec([None] * free + tensor.shape[free:], tensor.dtype)


def _where(active: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(active, [-1, *[1] * (len(new.shape) - 1)]), new, old)
