"""The geometric median of updates, by a smoothed Weiszfeld algorithm.

Source: Pillutla, Kakade, Harchaoui: Robust Aggregation for Federated Learning, IEEE Transactions on Signal
Processing 70, 2022 (RFA), algorithms 1 and 2.

Deviations: weights by examples are capped; the median is computed at the server from single updates, not with
secure sums as in the paper, which need a message to every client per iteration; iterations stop early once
the point hardly moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.server.strategies.robust import Matrix, RobustStrategy, Vector, capped, mean, norms

_STILL: Final = 1e-6  # iterations stop at a step below this fraction of the median distance


class GeometricMedian(RobustStrategy):
    """Moves the model to the point with the smallest weighted sum of distances to the clients' models.

    Args:
        iterations: maximum number; each makes two passes over all updates.
        smoothing: the paper's ν, in the unit of a weight: a lower limit on distances.
        weight_cap: a client's examples count up to this many times their median.
        kwargs: as for Flower's FedAvg.
    """

    def __init__(
        self, iterations: int = 32, smoothing: float = 1e-6, weight_cap: float = 4.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.iterations = iterations
        self.smoothing = smoothing
        self.weight_cap = weight_cap

    def combine(self, updates: Matrix, examples: Vector, nodes: Sequence[int]) -> NDArray[Any]:
        """Return argmin over z of Σ weight · ‖z − update‖."""
        weights = capped(examples, self.weight_cap)
        point = mean(updates, weights)
        for _ in range(self.iterations):
            distances = norms(updates, point)
            pulls = weights / np.maximum(distances, self.smoothing)
            moved = mean(updates, pulls / pulls.sum())
            step = float(np.linalg.norm(moved - point))
            point = moved
            if step <= _STILL * max(self.smoothing, float(np.median(distances))):
                break
        return point
