"""The steps of a run in their order, and the codec behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.update.step import Step, StepStates, Updates
from shoal.common.origin import Origin
from shoal.common.update.codecs import Arrays, Codec


class Pipeline:
    """Applies steps to the updates of a stack, and encodes the update of one client.

    Args:
        steps: in their order; codec: how an update travels.
    """

    def __init__(self, steps: Sequence[Step], codec: Codec) -> None:
        self._steps = list(steps)
        self.codec = codec

    def apply(
        self, updates: Updates, origins: Sequence[Origin], states: StepStates
    ) -> tuple[Updates, StepStates]:
        """Return what is left of updates after all steps, and what the steps remember.

        Args:
            updates: each (clients, ...), which steps may write into; origins: whose they are, (clients,).
            states: what the steps remember so far.
        """
        with np.errstate(invalid="ignore"):  # a client that has diverged is refused by itself
            for step in self._steps:
                updates, states = step.apply(updates, origins, states)
        return updates, states

    def encode(self, update: Arrays, origin: Origin) -> list[NDArray[Any]]:
        """Return the arrays in which one client's update travels."""
        return self.codec.encode(update, lambda: origin.rng("compression"))


def finite(arrays: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Tell of each client whether all its numbers are finite, (clients,); arrays are (clients, ...) each."""
    clients = len(arrays[0])
    found = np.ones(clients, np.bool_)
    for a in arrays:
        found &= np.isfinite(a).reshape(clients, -1).all(axis=1)
    return found
