"""Gradient matching: finds inputs whose gradient resembles the one that was sent; imports TensorFlow.

Sources: Zhu, Liu, Han: Deep Leakage from Gradients, NeurIPS 2019, for the idea; Geiping, Bauermeister, Dröge,
Moeller: Inverting Gradients - How easy is it to break privacy in federated learning?, NeurIPS 2020, section
4, for the objective: one minus the cosine of both gradients, and for images their total variation.

As in Geiping et al., the attacker knows the labels. Deviations: steps are plain Adam instead of signed; the
model runs in inference mode, so dropout, which the attacker cannot know, is not reproduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_RATE: Final = 0.1  # of the first step; it decays to zero along a cosine
_BETAS: Final = (0.9, 0.999)
_VARIATION: Final = 1e-4  # weight of the total variation of an image, a sum over its pixels
_TINY: Final = 1e-12


class Matcher:
    """Reconstructs inputs from gradients of one compiled model at its current weights."""

    def __init__(self, model: keras.Model, *, image: bool, steps: int) -> None:
        """Use a model with the weights that the update started from; image: inputs are in [0, 1]."""
        self._model = model
        self._image = image
        self._steps = steps
        self._run = tf.function(self._descend, reduce_retracing=True, autograph=False)

    def reconstruct(
        self,
        gradient: Sequence[NDArray[Any]],
        labels: NDArray[Any],
        start: NDArray[np.float32],
        span: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], float]:
        """Return inputs and their objective (0: the gradients have the same direction).

        Args:
            gradient: of the trainable weights, in the order of the model.
            labels: of the batch, (rows,); start: inputs to start from, (rows, ...).
            span: directions (directions, inputs) that are known to span the flattened inputs;
                `None` if nothing is known.
        """
        parts = start if span is None else start.reshape(len(start), -1) @ span.T
        wanted = [tf.convert_to_tensor(g, tf.float32) for g in gradient]
        given = [None if a is None else tf.convert_to_tensor(a) for a in (parts, span, labels)]
        found, objective = self._run(*given, wanted)
        x = found.numpy() if span is None else (found.numpy() @ span).reshape(start.shape)
        return np.clip(x, 0, 1) if self._image else x, float(objective)

    def weight_decay(self) -> list[NDArray[Any]]:
        """Return the gradients of the model's regularisation, which do not depend on any row."""
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            total = tf.add_n([tf.convert_to_tensor(0.0), *self._model.losses])
        found = tape.gradient(total, [v.value for v in variables], unconnected_gradients="zero")
        return [g.numpy() for g in found]

    def _objective(
        self, parts: tf.Tensor, span: tf.Tensor | None, y: tf.Tensor, wanted: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        x = parts if span is None else tf.reshape(parts @ span, [-1, *self._model.input_shape[1:]])
        variables = [v.value for v in self._model.trainable_variables]
        with tf.GradientTape() as tape:
            predicted = self._model(x, training=False)
            loss = self._model.compute_loss(x=x, y=y, y_pred=predicted, training=False)
        found = tape.gradient(loss, variables, unconnected_gradients="zero")
        both = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(found, wanted, strict=True)])
        sizes = [
            tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in side]) + _TINY) for side in (found, wanted)
        ]
        objective = 1 - both / (sizes[0] * sizes[1])
        if self._image:
            objective += _VARIATION * tf.reduce_mean(tf.image.total_variation(x))
        return objective

    def _descend(
        self, start: tf.Tensor, span: tf.Tensor | None, y: tf.Tensor, wanted: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take all steps of Adam on the inputs, or on their parts in a span (Kingma, Ba: ICLR 2015)."""
        first, second = _BETAS
        bounded = self._image and span is None

        def step(k: tf.Tensor, x: tf.Tensor, mean: tf.Tensor, square: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                objective = self._objective(x, span, y, wanted)
            slope = tape.gradient(objective, x)
            done = tf.cast(k, tf.float32)
            mean = first * mean + (1 - first) * slope
            square = second * square + (1 - second) * tf.square(slope)
            rate = _RATE * (1 + tf.cos(np.pi * done / self._steps)) / 2
            moved = mean / (1 - first ** (done + 1))
            x = x - rate * moved / (tf.sqrt(square / (1 - second ** (done + 1))) + 1e-8)
            return k + 1, tf.clip_by_value(x, 0.0, 1.0) if bounded else x, mean, square

        nothing = tf.zeros_like(start)
        _, x, _, _ = tf.while_loop(
            lambda k, *_: k < self._steps, step, [tf.constant(0), start, nothing, nothing]
        )
        return x, self._objective(x, span, y, wanted)
