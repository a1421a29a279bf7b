"""Hides a client's update behind noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clients.update.step import Origin, Updates


class Noise:
    """Adds independent Gaussian noise to every number of an update.

    On its own this is no promise of differential privacy: that takes clipping before it and an
    accountant that knows how often who took part.
    """

    def __init__(self, stddev: float) -> None:
        self._stddev = stddev

    def apply(self, updates: Updates, origins: Sequence[Origin]) -> Updates:
        """Add noise, drawn from each client's own generator."""
        for k, origin in enumerate(origins):
            rng = origin.rng("noise")
            for u in updates:
                draw = rng.standard_normal(u.shape[1:], dtype=np.float32)
                u[k] += (self._stddev * draw).astype(u.dtype)
        return updates

    def wire_bytes(self, numbers: int, arrays: int) -> int | None:
        """Leave the size as it is."""
        return None
