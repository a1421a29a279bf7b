"""The origin of an update: the key of every random draw on its behalf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.common.privacy.noise import Randomness, Source, randomness
from shoal.common.seeds import Purpose, generator


@dataclass(frozen=True, slots=True)
class Origin:
    """The client (index) and dispatch (number, from 1) of an update, in a run with a seed."""

    seed: int
    dispatch: int
    client: int

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """Return the client's own generator, independent of other clients."""
        return generator(self.seed, purpose, dispatch=self.dispatch, client=self.client)

    def draws(self, purpose: Purpose, source: Source) -> Randomness:
        """Return the source of the client's noise."""
        return randomness(source, self.seed, purpose, dispatch=self.dispatch, client=self.client)
