"""Adds a `LocalObjective` to the loss of any Keras model for the duration of one training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shoal.clients.training.objective import Arrays, LocalObjective, shaped
from shoal.common.errors import ModelError

_Penalty = Callable[[tf.Tensor], tf.Tensor]


class ObjectiveTerm:
    """Adds objectives through the regularizers of a model's variables.

    Keras adds `variable.regularizer(variable)` to the loss in every `train_step`, including a user's own, so
    the term needs no custom training loop and keeps the model's regularizers. Its values are TensorFlow
    variables, so one graph serves all clients whose objectives have the same parts. Outside of `added` the
    model is unchanged.
    """

    def __init__(self, model: keras.Model) -> None:
        """Wrap a built model, whose trainable variables must stay the same from now on."""
        self._variables = list(model.trainable_variables)
        self._shapes = [tuple(v.shape) for v in self._variables]
        self._mu = tf.Variable(0.0, trainable=False, name="objective_mu")
        self._anchors: list[tf.Variable] = []
        self._linear: list[tf.Variable] = []
        self._parts: tuple[str, ...] = ()
        self._computed = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts currently in the loss; each combination has its own graph."""
        return self._parts

    @contextmanager
    def added(self, objective: LocalObjective | None) -> Iterator[None]:
        """Add an objective to the model's loss until the context ends.

        Args:
            objective: of one client; an anchor of `None` means the model's current weights.

        Raises:
            ValueError: if an array does not have the shape of its weight.
        """
        penalties = {} if objective is None else self._penalties(objective)
        if not penalties:
            yield
            return
        own = [variable.regularizer for variable in self._variables]
        try:
            self._parts, self._computed = tuple(penalties), False
            for variable, inner, *terms in zip(self._variables, own, *penalties.values(), strict=True):
                variable.regularizer = self._total(inner, terms)
            yield
        finally:
            self._parts = ()
            for variable, regularizer in zip(self._variables, own, strict=True):
                variable.regularizer = regularizer

    def require_computed(self) -> None:
        """Check, once a step has been traced, that the objective is part of it.

        Raises:
            ModelError: if the model's own training step omits `model.losses`.
        """
        if self._parts and not self._computed:
            raise ModelError(
                "the strategy adds a term to each client's loss, but the model has its own train_step or "
                "compute_loss, which omits model.losses",
                hint="add sum(self.losses) to the loss there, or call super().compute_loss",
            )

    def _penalties(self, objective: LocalObjective) -> dict[str, list[_Penalty]]:
        """Assign the values of an objective; return the penalty of each variable, by part."""
        penalties = {}
        if objective.quadratic:
            (mu,) = shaped("objective.mu", [np.asarray(objective.mu)], [()])
            self._mu.assign(mu)
            given = objective.anchor
            anchors = [v.value for v in self._variables] if given is None else self._shaped("anchor", given)
            self._anchors = self._assigned(self._anchors, anchors)
            penalties["quadratic"] = [self._quadratic(anchor) for anchor in self._anchors]
        if objective.linear is not None:
            self._linear = self._assigned(self._linear, self._shaped("linear", objective.linear))
            penalties["linear"] = [_linear(slope) for slope in self._linear]
        return penalties

    def _shaped(self, name: str, arrays: Arrays) -> list[Any]:
        return shaped(f"objective.{name}", arrays, self._shapes)

    def _assigned(self, stored: list[tf.Variable], values: list[Any]) -> list[tf.Variable]:
        """Assign one array to each variable; the variables are created on first use."""
        if not stored:
            own = zip(values, self._variables, strict=True)
            return [tf.Variable(value, trainable=False, dtype=v.dtype) for value, v in own]
        for variable, value in zip(stored, values, strict=True):
            variable.assign(value)
        return stored

    def _quadratic(self, anchor: tf.Variable) -> _Penalty:
        def penalty(value: tf.Tensor) -> tf.Tensor:
            distance = tf.reduce_sum(tf.square(value - anchor))
            return tf.cast(self._mu, distance.dtype) / 2 * distance

        return penalty

    def _total(self, own: _Penalty | None, added: list[_Penalty]) -> _Penalty:
        """Return the sum of a variable's own regularizer, if any, and the objective's penalties."""

        def total(variable: keras.Variable) -> tf.Tensor:
            self._computed = True
            value = tf.convert_to_tensor(variable)
            penalty = 0.0 if own is None else own(variable)
            for term in added:
                penalty += term(value)
            return penalty

        return total


def _linear(slope: tf.Variable) -> _Penalty:
    def penalty(value: tf.Tensor) -> tf.Tensor:
        # The gradient is the slope, while the value is 0: it would only shift the reported loss by an
        # amount that depends on the arbitrary origin of the weights.
        return tf.reduce_sum(slope * (value - tf.stop_gradient(value)))

    return penalty
