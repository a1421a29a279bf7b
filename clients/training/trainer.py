"""Local training of a Keras model: one client's whole training in one compiled call.

`keras.Model.fit` spends milliseconds of Python on each batch; here a `tf.while_loop` runs Keras' own
`train_step` over all batches of all local epochs, so any compiled model works, including a subclass with its
own `train_step`. Shard sizes are dynamic: no retracing for another client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shoal.clients.training.local_settings import LocalSettings, batch_plan
from shoal.clients.training.objective import Arrays, LocalObjective
from shoal.clients.training.objective_term import ObjectiveTerm
from shoal.common.errors import ModelError, NonFiniteError
from shoal.common.profiling import span
from shoal.common.weights import all_finite

_RECURRENT = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
_MOST_UNROLLED = 64  # steps; building a larger graph costs more time than it saves
_PREDICT_ROWS = 1024  # bounds the memory of activations, whatever the shard's size


class Trainer:
    """A compiled model that trains and evaluates one client after another.

    Every call gives the weights to start from, and nothing carries over from one client to the next:
    optimizer state, loss tracker and the seeds of random layers are reset inside the compiled call.
    """

    def __init__(self, model: keras.Model) -> None:
        """Wrap a built model that `common.models.compile_model` has compiled."""
        self.model = model
        _unroll(model)
        model.optimizer.build(model.trainable_variables)
        self._weights: list[keras.Variable] = list(model.weights)
        self._optimizer_start = [np.asarray(v) for v in model.optimizer.variables]
        self._seeds = seed_states(model)
        self.objective_term = ObjectiveTerm(model)
        self._compiled: dict[tuple[str, ...], Callable[..., Any]] = {}
        self.traces = 0

    @span("train")
    def train(
        self,
        weights: Arrays,
        x: NDArray[Any],
        y: NDArray[Any],
        settings: LocalSettings,
        rng: np.random.Generator,
        objective: LocalObjective | None = None,
    ) -> tuple[list[NDArray[Any]], float, int]:
        """Train on a client's rows from the given weights.

        Args:
            weights: in the order of `keras.Model.get_weights`.
            x: encoded inputs (rows, ...); y: labels (rows,).
            settings: of the training.
            rng: draws the order of rows.
            objective: terms added to the model's loss; `None` for none.

        Returns:
            The new weights, the mean training loss over rows, and the number of steps. The loss excludes the
            linear term of the objective.

        Raises:
            ModelError: if the model's own train_step omits `model.losses`, and so the objective.
            NonFiniteError: if the loss or a weight is not finite afterwards.
            ValueError: if an array of the objective does not have the shape of its weight.
        """
        order, bounds = batch_plan(len(y), settings, rng)
        self.prepare(weights, settings)
        arguments = [x, y, order, bounds]
        if settings.class_weights is not None:
            arguments.append(np.asarray(settings.class_weights, np.float32)[y])
        with self.objective_term.added(objective):
            loss = float(self._call(self._all_steps, arguments))
        trained = self.model.get_weights()
        if not np.isfinite(loss) or not all_finite(trained):
            raise NonFiniteError.after_training(loss, len(bounds) - 1, settings.learning_rate)
        return trained, loss, len(bounds) - 1

    @span("evaluate")
    def evaluate(self, weights: Arrays, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Return predictions (rows, outputs) and the mean loss of the given weights on rows."""
        self._assign(weights)
        predictions, losses, counts = [], [], []
        for start in range(0, len(y), _PREDICT_ROWS):
            rows = slice(start, start + _PREDICT_ROWS)
            predicted, loss = self._call(self._forward, [x[rows], y[rows]])
            predictions.append(predicted.numpy())
            losses.append(float(loss))
            counts.append(len(y[rows]))
        return np.concatenate(predictions), float(np.average(losses, weights=counts))

    @span("evaluate")
    def evaluate_many(
        self, weights: Arrays, parts: Sequence[tuple[NDArray[Any], NDArray[Any]]]
    ) -> list[tuple[NDArray[Any], float]]:
        """Return the result of `evaluate` for each of several clients' rows, from shared forward passes."""
        if len(parts) == 1 or type(self.model).compute_loss is not keras.Model.compute_loss:
            return [self.evaluate(weights, x, y) for x, y in parts]
        self._assign(weights)
        x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        blocks = [x[start : start + _PREDICT_ROWS] for start in range(0, len(x), _PREDICT_ROWS)]
        predicted = np.concatenate([self._call(self._predict, [block]).numpy() for block in blocks])
        bounds = np.cumsum([0, *(len(labels) for _, labels in parts)])
        losses = self._call(self._losses, [y, predicted, bounds.astype(np.int32)]).numpy()
        found = np.split(predicted, bounds[1:-1])
        return [(p, float(loss)) for p, loss in zip(found, losses, strict=True)]

    def _assign(self, weights: Arrays) -> None:
        for variable, value in zip(self._weights, weights, strict=True):
            variable.assign(value)

    def prepare(self, weights: Arrays, settings: LocalSettings) -> None:
        """Reset all state that training reads, as for a client that starts from scratch."""
        self._assign(weights)
        if not settings.keep_optimizer:
            for variable, value in zip(self.model.optimizer.variables, self._optimizer_start, strict=True):
                variable.assign(value)
        self.model.optimizer.learning_rate.assign(settings.learning_rate)
        for number, seed in enumerate(self._seeds):
            seed.assign(np.array([settings.dropout_seed, number], seed.dtype))

    def _call(self, step: Callable[..., Any], arrays: Arrays) -> Any:
        """Call a compiled step, traced once for arrays of any length.

        An objective is part of the graph, so steps with and without it are two graphs.
        """
        tensors = [tf.convert_to_tensor(array) for array in arrays]
        key = (f"{step.__name__}/{len(tensors)}", *self.objective_term.parts)
        if key not in self._compiled:
            signature = [tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in tensors]
            # AutoGraph would convert Keras too: seconds of work, and files that killed workers leave in /tmp.
            self._compiled[key] = tf.function(step, input_signature=signature, autograph=False)
        return self._compiled[key](*tensors)

    def _all_steps(
        self, x: tf.Tensor, y: tf.Tensor, order: tf.Tensor, bounds: tf.Tensor, weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        self.traces += 1
        for metric in self.model.metrics:
            metric.reset_state()

        def train_step(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order[bounds[step] : bounds[step + 1]]
            batch = [tf.gather(x, rows), tf.gather(y, rows)]
            if weight is not None:
                batch.append(tf.gather(weight, rows))
            loss = minimised_loss(self.model, tuple(batch))
            return step + 1, total if loss is None else total + loss * tf.cast(tf.size(rows), tf.float32)

        steps = tf.shape(bounds)[0] - 1
        begin = [tf.constant(0), tf.constant(0.0)]
        _, total = tf.while_loop(lambda step, _: step < steps, train_step, begin)
        self.objective_term.require_computed()
        own = type(self.model).train_step is not keras.Model.train_step
        return total / tf.cast(bounds[-1], tf.float32) if own else self.model._loss_tracker.result()

    def _predict(self, x: tf.Tensor) -> tf.Tensor:
        self.traces += 1
        return self.model(x, training=False)

    def _losses(self, y: tf.Tensor, predicted: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
        """Return the loss of the rows between bounds, as Keras computes it for a batch of them."""
        self.traces += 1
        parts = tf.shape(bounds)[0] - 1

        def add_loss(part: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            rows = tf.range(bounds[part], bounds[part + 1])
            batch = tf.gather(y, rows), tf.gather(predicted, rows)
            loss = self.model.compute_loss(x=None, y=batch[0], y_pred=batch[1], training=False)
            return part + 1, losses.write(part, tf.cast(loss, tf.float32))

        start = [tf.constant(0), tf.TensorArray(tf.float32, parts)]
        _, losses = tf.while_loop(lambda part, _: part < parts, add_loss, start)
        return losses.stack()

    def _forward(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        self.traces += 1
        predicted = self.model(x, training=False)
        loss = self.model.compute_loss(x=x, y=y, y_pred=predicted, training=False)
        return predicted, loss


def minimised_loss(model: keras.Model, batch: tuple[tf.Tensor, ...]) -> tf.Tensor | None:
    """Run the model's `train_step`; return the loss that an own one minimises, `None` for that of Keras.

    Keras keeps the mean loss in a tracker, which a model's own step need not update. Its loss is what it asks
    `compute_loss` for, or else what it returns as "loss".

    Raises:
        ModelError: it does neither.
    """
    if type(model).train_step is keras.Model.train_step:
        model.train_step(batch)
        return None
    computed: list[tf.Tensor] = []
    compute_loss = model.compute_loss

    def noted(*args: Any, **kwargs: Any) -> tf.Tensor:
        computed.append(compute_loss(*args, **kwargs))
        return computed[-1]

    model.compute_loss = noted
    try:
        logs = model.train_step(batch)
    finally:
        del model.compute_loss
    if not computed and (not isinstance(logs, dict) or "loss" not in logs):
        raise ModelError(
            "the model's own train_step neither calls self.compute_loss nor returns its loss",
            hint='compute the loss with self.compute_loss(x=…, y=…, y_pred=…), or return {"loss": …}',
        )
    return tf.cast(computed[-1] if computed else logs["loss"], tf.float32)


def _unroll(model: keras.Model) -> None:
    """Unroll the loops of short recurrent layers, which then train in two thirds of the time.

    The results are the same. On a GPU, Keras has a kernel for the whole layer, which needs the loop.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model._flatten_layers(include_self=False):
        if type(layer) in _RECURRENT:
            shapes = layer.get_build_config() or {}
            # Called with an initial state, a layer has several inputs.
            shape = shapes.get("input_shape") or shapes.get("shapes_dict", {}).get("sequences_shape")
            layer.unroll = bool(shape and shape[1] and shape[1] <= _MOST_UNROLLED)


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Return the states of the model's random layers, which `get_weights` leaves out."""
    known = {id(v) for v in model.weights} | {id(v) for v in model.optimizer.variables}
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    return [v for v in model.variables if id(v) not in known | metrics]
