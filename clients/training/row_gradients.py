"""The sum of the clipped gradients of the rows of a batch, inside a compiled graph.

There are two implementations. `AnyRows` works for any model: it computes each row's gradient, as Keras does
for a batch of that row alone, for several rows at once. `DenseRows` is for chains of Dense layers, and never
materialises a row's gradient: for a Dense layer it is the outer product of the layer's input and the
derivative by its output, so its norm is a product of two norms (Goodfellow: Efficient Per-Example Gradient
Computations, 2015), and the sum over rows is one matrix product.

A row whose gradient, or its squared norm, is not finite counts as zero.

Deviation from that paper: the norm of a row covers all layers, and rows are weighted in the product instead
of in a second backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf

from shoal.common.models import LOSSES

# Layers that treat rows separately, allowed by DenseRows in addition to Dense.
_ROW_BY_ROW = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Flatten,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.Rescaling,
)
_SEEDS_A_ROW = 16  # bits for the seeds that one random layer uses for one row


@dataclass(frozen=True, slots=True)
class Batches:
    """The rows of several steps, as tensors.

    Attributes:
        x: all rows of the client, (rows, ...); y: labels, (rows,).
        weight: of each row in the loss, (rows,); `None` for 1.
        order: row indices of all steps, concatenated.
        first: position of order[0] in the order of the whole training; numbers the rows' dropout draws.
        seed: of the random layers.
    """

    x: tf.Tensor
    y: tf.Tensor
    weight: tf.Tensor | None
    order: tf.Tensor
    first: tf.Tensor
    seed: tf.Tensor

    def take(self, places: tf.Tensor) -> list[tf.Tensor]:
        """Return inputs, labels and weights, if any, of the rows at these positions in `order`."""
        rows = tf.gather(self.order, places)
        return [tf.gather(a, rows) for a in (self.x, self.y, self.weight) if a is not None]


class RowGradients(Protocol):
    """The interface: sums clipped gradients, in the order of `model.trainable_variables`."""

    def clipped_sum(self, batches: Batches, begin: tf.Tensor, end: tf.Tensor) -> list[tf.Tensor]:
        """Return the sum over rows order[begin:end], each scaled to an L2 norm of at most the clip norm."""
        ...


class AnyRows:
    """Row gradients of any model whose training changes nothing but its weights."""

    def __init__(self, model: keras.Model, seeds: Sequence[keras.Variable], clip: float, at_once: int):
        """Wrap a compiled model.

        Args:
            model: compiled; seeds: states of its random layers, each of two numbers.
            clip: largest L2 norm; at_once: rows whose gradients are in memory at once.
        """
        self._model = model
        self._seeds = {id(v): k for k, v in enumerate(seeds)}
        self._clip = clip
        loops = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
        # A loop within a row cannot be vectorised: rows are then processed one by one, in the same graph.
        self._vectorised = all(layer.unroll for layer in loops)
        self._at_once = at_once if self._vectorised else 1

    def clipped_sum(self, batches: Batches, begin: tf.Tensor, end: tf.Tensor) -> list[tf.Tensor]:
        """Return the sum over rows order[begin:end]; zeros if there are none."""
        variables = self._model.trainable_variables

        def add(done: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            last = tf.minimum(done + self._at_once, end)
            gradients, count = self._gradients(batches, tf.range(done, last)), last - done
            squares = tf.add_n([tf.reduce_sum(tf.square(_flat(g)), 1) for g in gradients])
            there = tf.cast(tf.range(tf.shape(squares)[0]) < count, squares.dtype)
            factors = (there * _factors(squares, self._clip))[None]
            rows = [_finite_rows(_flat(g), squares) for g in gradients]
            found = [
                tf.reshape(tf.matmul(factors, r), g.shape[1:]) for r, g in zip(rows, gradients, strict=True)
            ]
            return last, [a + b for a, b in zip(sums, found, strict=True)]

        zeros = [tf.zeros(v.shape) for v in variables]
        shapes = [tf.TensorShape([]), [z.shape for z in zeros]]
        _, sums = tf.while_loop(lambda done, _: done < end, add, [begin, zeros], shapes)
        found: list[tf.Tensor] = sums
        return found

    def _gradients(self, batches: Batches, places: tf.Tensor) -> list[tf.Tensor]:
        """Return the gradients of the rows at these positions, (places, ...), and possibly of one more.

        `tf.vectorized_map` confuses shapes if there is only one row, so the first row is duplicated.
        """
        if self._vectorised:
            places = tf.concat([places, places[:1]], 0)
        rows = [*batches.take(places), self._row_seeds(batches.seed, batches.first + places)]
        if self._vectorised:
            found: list[tf.Tensor] = tf.vectorized_map(lambda row: self._gradient(*row), tuple(rows))
            return found
        return [g[None] for g in self._gradient(*(row[0] for row in rows))]

    def _gradient(self, x: tf.Tensor, y: tf.Tensor, *rest: tf.Tensor) -> list[tf.Tensor]:
        """Return the gradient of one row's loss, without terms that do not depend on the row."""
        *weight, seeds = rest
        weights = [v.value for v in self._model.trainable_variables]
        others = self._model.non_trainable_variables
        state = [seeds[self._seeds[id(v)]] if id(v) in self._seeds else v.value for v in others]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            weights = [tf.convert_to_tensor(w) for w in weights]
            tape.watch(weights)
            predicted, _, more = self._model.stateless_call(
                weights, state, x[None], training=True, return_losses=True
            )
            # Keras puts the regularizers, which do not depend on the row, after losses added by layers.
            regularizers = sum(v.regularizer is not None for v in self._model.trainable_weights)
            own = more[: len(more) - regularizers]
            given = weight[0][None] if weight else None
            loss = self._model._compile_loss(y[None], predicted, given)
            loss = tf.add_n([loss, *(tf.cast(tf.reduce_sum(term), loss.dtype) for term in own)])
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(g) for g in gradients]

    def _row_seeds(self, seed: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Return states of the random layers, (rows, layers, 2), different for each row of each step."""
        count = tf.shape(places)[0]
        kinds = tf.range(len(self._seeds)) * 2**_SEEDS_A_ROW
        pairs = [
            tf.tile((seed + places)[:, None], [1, len(self._seeds)]),
            tf.tile(kinds[None], [count, 1]),
        ]
        return tf.cast(tf.stack(pairs, -1), tf.uint32)


class DenseRows:
    """Row gradients of a chain of Dense layers, for models that satisfy `fits`."""

    def __init__(self, model: keras.Model, clip: float) -> None:
        """Wrap a compiled model; `clip` is the largest L2 norm."""
        self._model = model
        # A Sequential keeps its graph private; this one is over the same layers.
        # One output, not a list of one: a Keras loss keeps the structure that it is first given.
        self._graph = keras.Model(model.inputs, model.outputs[0])
        self._clip = clip

    @staticmethod
    def fits(model: keras.Model) -> bool:
        """Return whether the model is such a chain, with a loss that is the mean over rows."""
        keras_own = type(model).__module__.startswith("keras.")  # not a user's subclass with its own call
        if not keras_own or not model.built or not _mean_over_rows(model.loss):
            return False
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            return False
        # Each operation has one input and is used once, by the next one: no sharing and no branches.
        return all(
            type(one) in _ROW_BY_ROW and len(one._inbound_nodes) == 1 and _is_simple(one)
            for one in keras.Model(model.inputs, model.outputs).operations
        )

    def clipped_sum(self, batches: Batches, begin: tf.Tensor, end: tf.Tensor) -> list[tf.Tensor]:
        """Return the sum over rows order[begin:end]; zeros if there are none."""
        x, y, *weight = batches.take(tf.range(begin, end))
        given: dict[int, tf.Tensor] = {}  # the input and output of each layer
        made: dict[int, tf.Tensor] = {}
        layers: list[Any] = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def tapped(operation: Any) -> Callable[..., tf.Tensor]:
                if type(operation) is not keras.layers.Dense:
                    return operation  # type: ignore[no-any-return]

                def call(inputs: tf.Tensor) -> tf.Tensor:
                    outputs = tf.matmul(inputs, operation.kernel.value)
                    if operation.use_bias:
                        outputs = tf.nn.bias_add(outputs, operation.bias.value)
                    tape.watch(outputs)
                    layers.append(operation)
                    given[id(operation)], made[id(operation)] = inputs, outputs
                    return outputs if operation.activation is None else operation.activation(outputs)

                return call

            predicted = self._graph._run_through_graph(x, operation_fn=tapped)
            mean = self._model._compile_loss(y, predicted, weight[0] if weight else None)
            loss = mean * tf.cast(tf.shape(y)[0], mean.dtype)  # the sum of the rows' own losses
        slopes = tape.gradient(loss, [made[id(layer)] for layer in layers])
        squares = [
            _squares(d) * (_squares(given[id(layer)]) + float(layer.use_bias))
            for layer, d in zip(layers, slopes, strict=True)
        ]
        whole = tf.add_n(squares)
        factors = _factors(whole, self._clip)[:, None]
        found: dict[int, tf.Tensor] = {}
        for layer, slope in zip(layers, slopes, strict=True):
            clipped = factors * _finite_rows(slope, whole)
            inputs = _finite_rows(given[id(layer)], whole)
            found[id(layer.kernel)] = tf.matmul(inputs, clipped, transpose_a=True)
            if layer.use_bias:
                found[id(layer.bias)] = tf.reduce_sum(clipped, 0)
        return [found[id(v)] for v in self._model.trainable_variables]


def _is_simple(layer: Any) -> bool:
    """Return whether a layer computes what DenseRows assumes."""
    if layer.activity_regularizer is not None or layer.non_trainable_weights:
        return False
    activation = getattr(layer, "activation", None)
    known = activation is None or getattr(activation, "__module__", "").startswith("keras.")
    if type(layer) is keras.layers.Dense:
        flat = len(layer.get_build_config()["input_shape"]) == 2
        return known and flat and not layer.lora_enabled and layer.quantization_mode is None
    return known


def _mean_over_rows(loss: Any) -> bool:
    """Return whether a loss is a Keras loss with one number per row, averaged."""
    classes = {getattr(keras.losses, entry.kind) for entry in LOSSES.values()}
    by_name = isinstance(loss, str) and loss in LOSSES
    return by_name or (type(loss) in classes and loss.reduction == "sum_over_batch_size")


def _factors(squares: tf.Tensor, clip: float) -> tf.Tensor:
    """Return the factors that scale rows with these squared norms (rows,) to at most the clip norm.

    Rows whose norm is not finite have the factor 0.
    """
    factors = clip / tf.maximum(tf.sqrt(squares), clip)
    return tf.where(tf.math.is_finite(squares), factors, tf.zeros_like(factors))


def _finite_rows(rows: tf.Tensor, squares: tf.Tensor) -> tf.Tensor:
    """Return rows (rows, numbers), zeros in place of those whose squared norm is not finite.

    Scaling such a row would not bound it (0 · ∞ is NaN), and its failure would tell the server of it.
    """
    return tf.where(tf.math.is_finite(squares)[:, None], rows, tf.zeros_like(rows))


def _flat(gradient: tf.Tensor) -> tf.Tensor:
    """Return gradients (rows, ...) as a matrix."""
    return tf.reshape(gradient, [-1, gradient.shape[1:].num_elements()])


def _squares(rows: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(rows), 1)
