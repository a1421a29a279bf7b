"""The proximal term of FedProx, added to the loss of any Keras model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks,
MLSys 2020, eq. 2: each client minimises F_k(w) + mu/2 ||w - w_global||².

Deviation: non-trainable weights (moving averages of batch norm) have no gradient and no term.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf


class ProximalTerm:
    """Holds mu and the global weights; adds the term through the variables' regularizers.

    Keras adds `variable.regularizer(variable)` to the loss in every `train_step`, also in one that a
    user wrote, so the term needs no training loop of its own and keeps the model's regularizers.
    """

    def __init__(self, model: keras.Model) -> None:
        self.mu = tf.Variable(0.0, trainable=False, name="proximal_mu")
        self._variables = list(model.trainable_variables)
        self._anchors = [tf.Variable(v.value, trainable=False) for v in self._variables]

    @classmethod
    def install(cls, model: keras.Model) -> ProximalTerm:
        """Add the term to a model's loss, once, with mu = 0."""
        term = cls(model)
        for variable, anchor in zip(term._variables, term._anchors, strict=True):
            variable.regularizer = term._regularizer(anchor, variable.regularizer)
        return term

    def set(self, mu: float) -> None:
        """Set mu, and the model's present weights as the global ones."""
        self.mu.assign(mu)
        for anchor, variable in zip(self._anchors, self._variables, strict=True):
            anchor.assign(variable.value)

    def _regularizer(
        self, anchor: tf.Variable, inner: Callable[[tf.Tensor], tf.Tensor] | None
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        def penalty(value: tf.Tensor) -> tf.Tensor:
            distance = tf.reduce_sum(tf.square(tf.convert_to_tensor(value) - anchor))
            own = 0.0 if inner is None else inner(value)
            return own + tf.cast(self.mu, distance.dtype) / 2 * distance

        return penalty
