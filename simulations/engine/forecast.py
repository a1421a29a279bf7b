"""Forecasts the duration of a chunk of clients, so that the longest are started first."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FORGET = 0.98  # factor on the weight of earlier chunks at each new measurement


@dataclass(slots=True)
class Forecast:
    """log(seconds per client) = a + b log(examples per client), fitted to the measured chunks.

    Least squares with exponential forgetting adapts soon to a busier machine or a longer schedule. Before two
    sizes are measured, time is assumed proportional to examples. The forecast affects the execution order
    only, never which clients share a chunk, on which results depend.

    Source of the model: Sani et al., Pollen: High-throughput Federated Learning Simulation via
    Resource-Aware Client Placement, 2023, arXiv:2306.17453 (log-linear in a client's batches).
    """

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def learn(self, clients: int, examples: float, seconds: float) -> None:
        """Add a measured chunk.

        Args:
            clients: in the chunk, at least 1.
            examples: total over the clients; seconds: total time.
        """
        if examples <= 0 or seconds <= 0:
            return
        x, y = math.log(examples / clients), math.log(seconds / clients)
        self.weight = _FORGET * self.weight + 1
        self.x, self.y = _FORGET * self.x + x, _FORGET * self.y + y
        self.xx, self.xy = _FORGET * self.xx + x * x, _FORGET * self.xy + x * y

    def seconds(self, clients: int, examples: float) -> float:
        """Return the expected seconds of a chunk; before the first measurement, its examples."""
        if examples <= 0:
            return 0.0
        if not self.weight:
            return examples
        spread = self.weight * self.xx - self.x * self.x
        slope = 1.0
        if spread > 1e-6 * self.weight * self.weight:
            slope = (self.weight * self.xy - self.x * self.y) / spread
        start = (self.y - slope * self.x) / self.weight
        return clients * math.exp(start + slope * math.log(examples / clients))
