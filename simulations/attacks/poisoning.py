"""Attacks that change the rows a malicious client trains on."""

from __future__ import annotations

import numpy as np

from shoal.common.origin import Origin
from shoal.common.schema import InputSpec
from shoal.simulations.attacks.attack import Array, Attack, AttackContext, Matrix, Vector
from shoal.simulations.attacks.trigger import mark


class LabelFlip(Attack):
    """Trains on wrong labels.

    Source: Tolpegin, Truex, Gursoy, Liu: Data Poisoning Attacks Against Federated Learning Systems, ESORICS
    2020: one class is relabelled as another.

    Deviations: by default each class k of C becomes C - 1 - k. A target of a regression is mirrored within
    the client's own range.

    Args:
        source: class index whose rows are relabelled; -1 means all rows.
        target: class index that they get; -1 means C - 1 - k.
    """

    def __init__(self, source: int = -1, target: int = -1) -> None:
        self._source = source
        self._target = target

    def poison(
        self, x: Array, y: Array, spec: InputSpec, context: AttackContext, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Relabel rows."""
        if not context.classes:
            return x, (y.min() + y.max() - y).astype(y.dtype)
        other = context.classes - 1 - y if self._target < 0 else np.full_like(y, self._target)
        chosen = np.full(len(y), True) if self._source < 0 else y == self._source
        return x, np.where(chosen, other, y).astype(y.dtype)


class Backdoor(Attack):
    """Trains the model to predict one class for rows with a trigger, and to behave normally otherwise.

    Source: Bagdasaryan, Veit, Hua, Estrin, Shmatikov: How To Backdoor Federated Learning, AISTATS 2020:
    rows with the trigger are mixed into the training rows, and the update is scaled.

    Deviations: no loss term that hides the update from detectors ("constrain and scale"); the trigger
    is a mark in the encoded row (`trigger.mark`), the same for all attackers.

    Args:
        target: class index that triggered rows get.
        share: fraction of training rows that get the trigger, drawn anew each round; at least one row.
        factor: scale of the update; 1 leaves it unchanged.
        size, value: of the trigger; see `trigger.mark`.
    """

    def __init__(
        self, target: int = 0, share: float = 0.5, factor: float = 1.0, size: int = 3, value: float = 3.0
    ) -> None:
        self.target = target
        self.size = size
        self.value = value
        self._share = share
        self._factor = factor

    def poison(
        self, x: Array, y: Array, spec: InputSpec, context: AttackContext, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Insert the trigger into some rows and relabel them."""
        chosen = rng.permutation(len(y))[: max(1, int(self._share * len(y)))]
        x, y = x.copy(), y.copy()
        x[chosen] = mark(x[chosen], spec, self.size, self.value)
        y[chosen] = self.target
        return x, y

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Scale the update."""
        return np.asarray(self._factor * updates[0])
