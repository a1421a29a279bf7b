"""What an attack is: something done to training rows, to what is sent, or to both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.origin import Origin
from shoal.common.schema import InputSpec

Array = NDArray[Any]
Vector = NDArray[np.float64]  # (numbers,): a model's weights, one after another
Matrix = NDArray[np.float64]  # (clients, numbers)


@dataclass(frozen=True, slots=True)
class AttackContext:
    """What attackers know of the federation.

    Attributes:
        clients: in a round; malicious: how many of them may be expected to be.
        classes: to tell apart; 0 for regression.
    """

    clients: int
    malicious: int
    classes: int


class Attack:
    """A client's misbehaviour; this base class behaves. Its constructor takes the scenario's arguments."""

    def poison(
        self, x: Array, y: Array, spec: InputSpec, context: AttackContext, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return the rows that the client trains on; the arguments are not changed.

        Args:
            x: encoded training rows (rows, ...), as `spec` describes them; y: labels (rows,).
            context: what is known; rng: the client's, of this round.
        """
        return x, y

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return the update that is sent, (numbers,).

        Args:
            updates: honest ones, after the pipeline of honest clients (clip, noise, compress): the
                client's own, (1, numbers), or those of `colluding.Colluding`, (1 or more, numbers).
            context: what is known; origin: who sends it, in which round.
        """
        return np.asarray(updates[0])
