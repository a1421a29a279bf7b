"""Forecasts how long a chunk of clients takes, so that the longest are started first."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FORGET = 0.98  # weight of what is known when one more chunk has been measured


@dataclass(slots=True)
class Forecast:
    """log(seconds a client) = a + b log(examples a client), fitted to the chunks that were measured.

    Least squares with exponential forgetting: a machine that gets busy, or a longer schedule, is soon
    followed. Before two sizes were measured, time is taken as proportional to examples. The forecast
    orders work only; it never decides which clients are together, which results depend on.

    Source of the model: Sani et al., Pollen: High-throughput Federated Learning Simulation via
    Resource-Aware Client Placement, 2023, arXiv:2306.17453 (log-linear in a client's batches).
    """

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def learn(self, clients: int, examples: float, seconds: float) -> None:
        """Take a measured chunk in.

        Args:
            clients: of the chunk, at least 1.
            examples: all they have; seconds: that they took together.
        """
        if examples <= 0 or seconds <= 0:
            return
        x, y = math.log(examples / clients), math.log(seconds / clients)
        self.weight = _FORGET * self.weight + 1
        self.x, self.y = _FORGET * self.x + x, _FORGET * self.y + y
        self.xx, self.xy = _FORGET * self.xx + x * x, _FORGET * self.xy + x * y

    def seconds(self, clients: int, examples: float) -> float:
        """Return the seconds that a chunk will take; before anything was measured, its examples."""
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
