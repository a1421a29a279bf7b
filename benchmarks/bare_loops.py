"""The bare training loops that `benchmarks/floor.py` measures: no federation, one compiled call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.arrays import BATCH, Arrays
from benchmarks.models import compiled
from benchmarks.tasks import TASKS

Loop = Callable[[], None]


def sequential(task: str, arrays: Arrays, clients: Sequence[int]) -> Loop:
    """Return a loop over clients one after another, each from the same weights.

    A recurrent layer is taken as it is or unrolled, which shoal does too, whichever is faster.

    Args:
        task: name; arrays: its data; clients: to train.
    """
    import keras

    model = compiled(task, keras, TASKS[task].learning_rate)
    loop = _one_by_one(task, model, arrays, clients)
    if not any(isinstance(layer, keras.layers.LSTM) for layer in model.layers):
        return loop
    unrolled = compiled(task, keras, TASKS[task].learning_rate)
    for layer in unrolled.layers:
        if isinstance(layer, keras.layers.LSTM):
            layer.unroll = True
    return min((loop, _one_by_one(task, unrolled, arrays, clients)), key=_seconds)


def _one_by_one(task: str, model: Any, arrays: Arrays, clients: Sequence[int]) -> Loop:
    import keras
    import tensorflow as tf

    rate, loss = TASKS[task].learning_rate, keras.losses.get(model.loss)
    variables = [variable.value for variable in model.trainable_variables]
    start = [tf.constant(w) for w in arrays.weights]
    x, y = tf.constant(arrays.x), tf.constant(_labels(task, arrays.y))
    # (client, step) → first row; a step ends where the next one starts, or the client does
    starts = [np.arange(arrays.bounds[c], arrays.bounds[c + 1], BATCH) for c in clients]
    first = tf.constant(np.concatenate(starts).astype(np.int32))
    ends = [np.minimum(s + BATCH, arrays.bounds[c + 1]) for s, c in zip(starts, clients, strict=True)]
    end = tf.constant(np.concatenate(ends).astype(np.int32))
    steps = tf.constant(np.cumsum([0, *map(len, starts)]).astype(np.int32))

    @tf.function
    def all_steps() -> None:
        for client in tf.range(len(clients)):
            for variable, w in zip(variables, start, strict=True):
                variable.assign(w)
            for step in tf.range(steps[client], steps[client + 1]):
                rows = slice(first[step], end[step])
                with tf.GradientTape() as tape:
                    value = tf.reduce_mean(loss(y[rows], model(x[rows], training=True)))
                for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
                    _descend(variable, gradient, rate)

    return all_steps


def stacked(task: str, arrays: Arrays, clients: Sequence[int]) -> Loop:
    """Return a loop over steps that trains all clients at once, with XLA if that is faster.

    Args:
        task: name; arrays: its data; clients: to train, all with as many rows.
    """
    import keras
    import tensorflow as tf

    model = compiled(task, keras, TASKS[task].learning_rate)
    rate, loss = TASKS[task].learning_rate, keras.losses.get(model.loss)
    start = [tf.constant(np.repeat(w[None], len(clients), axis=0)) for w in arrays.weights]
    parts = [arrays.client(c) for c in clients]
    x = tf.constant(_by_step([rows for rows, _ in parts]))
    y = tf.constant(_by_step([_labels(task, labels) for _, labels in parts]))

    def gradient(part: tuple[list[Any], Any, Any]) -> list[Any]:
        weights, rows, labels = part
        with tf.GradientTape() as tape:
            tape.watch(weights)
            predicted, _ = model.stateless_call(weights, [], rows, training=True)
            value = tf.reduce_mean(loss(labels, predicted))
        found: list[Any] = tape.gradient(value, weights)
        return found

    def all_steps() -> list[Any]:
        weights = start
        for step in tf.range(len(x)):
            gradients = tf.vectorized_map(gradient, (weights, x[step], y[step]))
            weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
        return weights

    plain, xla = tf.function(all_steps), tf.function(all_steps, jit_compile=True)
    return min((plain, xla), key=_seconds)


LOOPS: Final[dict[str, Callable[[str, Arrays, Sequence[int]], Loop]]] = {
    "sequential": sequential,
    "stacked": stacked,
}


def _labels(task: str, y: np.ndarray) -> np.ndarray:
    """Return labels as the loss function wants them: one column for a binary task."""
    return y if task == "cnn" else y[:, None].astype(np.float32)


def _descend(variable: Any, gradient: Any, rate: float) -> None:
    """Take an SGD step; of an embedding, only the rows that the batch has looked up."""
    import tensorflow as tf

    if isinstance(gradient, tf.IndexedSlices):
        variable.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
    else:
        variable.assign_sub(rate * gradient)


def _by_step(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Turn arrays (rows, ...) of several clients into one of (steps, clients, batch, ...)."""
    batches = np.stack(parts).reshape(len(parts), -1, BATCH, *parts[0].shape[1:])
    return np.ascontiguousarray(batches.swapaxes(0, 1))


def _seconds(loop: Loop) -> float:
    loop()
    started = time.perf_counter()
    loop()
    return time.perf_counter() - started
