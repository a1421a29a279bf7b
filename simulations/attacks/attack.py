"""The base class of attacks: an attack changes the training rows, the update that is sent, or both."""

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
    """What attackers know about the federation.

    Attributes:
        clients: number per round; malicious: expected number of malicious ones among them.
        classes: number of classes; 0 for regression.
    """

    clients: int
    malicious: int
    classes: int


class Attack:
    """An attack by one client; this base class is honest. The constructor takes the scenario's arguments."""

    def poison(
        self, x: Array, y: Array, spec: InputSpec, context: AttackContext, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return the rows that the client trains on; the arguments are not modified.

        Args:
            x: encoded training rows (rows, ...), as `spec` describes them; y: labels (rows,).
            context: what the attacker knows; rng: the client's generator of this round.
        """
        return x, y

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return the update that is sent, (numbers,).

        Args:
            updates: honest updates after the steps of honest clients (clip, noise, compress): the client's
                own, (1, numbers), or the colluders' (`colluding.Colluding`), (1 or more, numbers).
            context: what the attacker knows; origin: which client sends it, in which round.
        """
        return np.asarray(updates[0])
