"""Weights updates by their cosine similarity to a trusted client's update.

Source: Cao, Fang, Liu, Gong: FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, NDSS 2021.

Deviations: in the paper the server has a small clean data set and trains on it itself. Here the server has no
rows: a given client, such as the coordinating hospital, is trusted, and its update is the reference. That
update is also part of the mean, with the trust score 1, so the scores never add up to 0.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.sites import FIRST_NODE_ID
from shoal.server.strategies.robust import Matrix, RobustStrategy, Vector, mean, norms

_log = logging.getLogger("flwr")  # a run writes it to its log


class FLTrust(RobustStrategy):
    """Mean of updates, scaled to the trusted one's norm and weighted by max(0, cosine to the trusted one).

    Args:
        trusted: index of the trusted client.
        kwargs: as for Flower's FedAvg.
    """

    def __init__(self, trusted: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trusted = trusted

    def combine(self, updates: Matrix, examples: Vector, nodes: Sequence[int]) -> NDArray[Any] | None:
        """Return the mean, or `None` if the trusted client is not in the round."""
        node = self.trusted + FIRST_NODE_ID
        if node not in nodes:
            _log.warning("FLTrust: client %d did not reply, so this round is not applied", self.trusted)
            return None
        reference: NDArray[np.float64] = updates[nodes.index(node)].astype(np.float64)
        sizes = norms(updates)
        size = sizes[nodes.index(node)]
        if size == 0:
            return reference  # it is zero, so the model does not move either
        return mean(updates, trust(updates, reference, sizes) * size)


def trust(updates: Matrix, reference: NDArray[np.float64], sizes: Vector) -> Vector:
    """Return each update's share of trust divided by its norm, (clients,).

    Args:
        updates: (clients, numbers); reference: the trusted one, (numbers,), not zero.
        sizes: the norms of the updates, (clients,).
    """
    safe = np.where(sizes > 0, sizes, 1.0)
    along = np.array([row.astype(np.float64) @ reference for row in updates])
    scores = np.maximum(0.0, along / (safe * np.linalg.norm(reference)))
    return np.asarray(scores / (scores.sum() * safe))
