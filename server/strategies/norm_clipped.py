"""Limits how far any one client can move the model.

Source: Sun, Kairouz, Suresh, McMahan: Can You Really Backdoor Federated Learning?, 2019 (arXiv:1911.07963),
"norm thresholding of updates".

Deviations: the norm may be the median of the round's norms; the mean is by examples, with a cap; the weak
differential privacy of the paper (noise) is not part of it: see docs/privacy.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.server.strategies.robust import Matrix, RobustStrategy, Vector, capped, mean, norms


class NormClippedMean(RobustStrategy):
    """Scales updates down to a norm, then takes their mean, weighted by examples.

    Args:
        norm: maximum L2 norm of an update; 0 means the median norm of the round.
        weight_cap: a client's examples count up to this many times their median.
        kwargs: as for Flower's FedAvg.
    """

    def __init__(self, norm: float = 0.0, weight_cap: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = norm
        self.weight_cap = weight_cap

    def combine(self, updates: Matrix, examples: Vector, nodes: Sequence[int]) -> NDArray[Any]:
        """Return the mean of min(1, norm / ‖update‖) · update."""
        sizes = norms(updates)
        limit = self.norm or float(np.median(sizes))
        factors = limit / np.maximum(sizes, limit) if limit > 0 else np.ones(len(sizes))
        return mean(updates, capped(examples, self.weight_cap) * factors)
