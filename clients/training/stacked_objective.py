"""What a `LocalObjective` adds to the gradients and losses of a stack of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from shoal.clients.training.objective import Arrays, LocalObjective, shaped
from shoal.clients.training.stacked_optimizers import Tensors


class StackedObjective(NamedTuple):  # a tuple, which a compiled function takes as an argument
    """The objectives of a stack as tensors; an absent part is an empty list.

    Attributes:
        mu: a list of one tensor, (clients,), or (1,) if it is the same for all.
        anchor, linear: by trainable weight, each shaped like the weight or with a leading client axis, so
            that they broadcast against stacked weights. An empty anchor means each client's start.
    """

    mu: Tensors
    anchor: Tensors
    linear: Tensors

    def add(
        self, weights: Tensors, start: Tensors, gradients: Tensors, losses: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Add the objectives to gradients and losses; the linear term is not part of the loss.

        Args:
            weights: trainable weights, each (clients, ...).
            start: trainable weights before training, shaped like `anchor`.
            gradients: of the clients' own losses, each (clients, ...); losses: (clients,).
        """
        if self.mu:
            mu, anchor = self.mu[0], self.anchor or start
            moves = [w - a for w, a in zip(weights, anchor, strict=True)]
            gradients = [g + _by_client(mu, g) * move for g, move in zip(gradients, moves, strict=True)]
            losses += mu / 2 * tf.add_n([_sum_of_squares(move) for move in moves])
        if self.linear:
            gradients = [g + slope for g, slope in zip(gradients, self.linear, strict=True)]
        return gradients, losses


NOTHING = StackedObjective([], [], [])


def stacked_objective(
    objective: LocalObjective | None, like: Sequence[tuple[int, ...]], clients: int
) -> StackedObjective:
    """Return the tensors of a stack's objectives.

    Args:
        objective: of all clients, as one; `None` for none.
        like: shapes of the trainable weights; clients: in the stack.

    Raises:
        ValueError: if the shape of mu or an array fits neither one client nor all.
    """
    if objective is None:
        return NOTHING

    def tensors(name: str, arrays: Arrays | None, shapes: Sequence[tuple[int, ...]]) -> Tensors:
        found = [] if arrays is None else shaped(f"objective.{name}", arrays, shapes, clients)
        return [tf.convert_to_tensor(np.asarray(array, np.float32)) for array in found]

    linear = tensors("linear", objective.linear, like)
    if not objective.quadratic:
        return StackedObjective([], [], linear)
    (mu,) = tensors("mu", [np.asarray(objective.mu)], [()])
    return StackedObjective([tf.reshape(mu, [-1])], tensors("anchor", objective.anchor, like), linear)


def _by_client(numbers: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Return numbers (clients,), shaped to broadcast against an array (clients, ...)."""
    return tf.reshape(numbers, [-1, *[1] * (len(like.shape) - 1)])


def _sum_of_squares(stacked: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(stacked), axis=list(range(1, len(stacked.shape))))
