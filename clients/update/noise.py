"""Adds noise to a client's update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from shoal.clients.update.step import Arrays, StepStates, Updates
from shoal.common.origin import Origin
from shoal.common.privacy.noise import Source, with_noise


class GaussianNoise:
    """Adds independent Gaussian noise to every value of an update.

    On its own this guarantees no differential privacy: that needs clipping before it and an accountant that
    tracks how often each client took part (`[privacy]` with unit = "local").
    """

    def __init__(self, stddev: float, source: Source = "seeded") -> None:
        self._stddev = stddev
        self._source = source

    def init_state(self, shared: Arrays) -> dict[str, NDArray[Any]]:
        """Return an empty state."""
        return {}

    def apply(
        self, updates: Updates, origins: Sequence[Origin], states: StepStates
    ) -> tuple[Updates, StepStates]:
        """Add noise, drawn separately for each client."""
        for k, origin in enumerate(origins):
            draws = origin.draws("noise", self._source)
            for u in updates:
                u[k] = with_noise(u[k].reshape(-1), self._stddev, draws).reshape(u.shape[1:])
        return updates, states
