"""Whose an update is: what every draw on its behalf is keyed by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.common.privacy.noise import Randomness, Source, randomness
from shoal.common.seeds import Purpose, generator


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose update it is: a client (index), asked in a dispatch (number, from 1) of a run with a seed."""

    seed: int
    dispatch: int
    client: int

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """Return the client's own generator, so that what is drawn does not depend on its neighbours."""
        return generator(self.seed, purpose, dispatch=self.dispatch, client=self.client)

    def draws(self, purpose: Purpose, source: Source) -> Randomness:
        """Return what the client's noise is drawn from."""
        return randomness(source, self.seed, purpose, dispatch=self.dispatch, client=self.client)
