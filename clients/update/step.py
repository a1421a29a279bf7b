"""The contract of a step of the update pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.common.privacy.noise import Randomness, Source, randomness
from shoal.common.seeds import Purpose, generator

Updates = list[NDArray[Any]]  # one array a weight of the model, each (clients, ...)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose update it is: a client (index) in a round of a run with a seed."""

    seed: int
    round: int
    client: int

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """Return the client's own generator, so that what is drawn does not depend on its neighbours."""
        return generator(self.seed, purpose, round=self.round, client=self.client)

    def draws(self, purpose: Purpose, source: Source) -> Randomness:
        """Return what the client's noise is drawn from."""
        return randomness(source, self.seed, purpose, round=self.round, client=self.client)


class Step(Protocol):
    """One step. It may write into the arrays that it is given, and returns those that go on."""

    def apply(self, updates: Updates, origins: Sequence[Origin]) -> Updates:
        """Return the updates after this step.

        Args:
            updates: of floating point, in the order of `keras.Model.get_weights`, each (clients, ...).
            origins: whose they are, (clients,).
        """
        ...

    def wire_bytes(self, numbers: int, arrays: int) -> int | None:
        """Return the bytes in which an update now travels, or `None` if this step does not change them.

        Args:
            numbers: that an update has; arrays: in which they are.
        """
        ...
