"""Limits how far one client can move the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.update.step import Arrays, StepStates, Updates
from shoal.common.origin import Origin


def norms(updates: Updates) -> NDArray[np.float64]:
    """Return the L2 norm of each client's whole update, (clients,)."""
    flat = [u.reshape(len(u), -1) for u in updates]
    # in float64: the squares of a large update overflow float32
    squares = [np.einsum("ij,ij->i", u, u, dtype=np.float64) for u in flat]
    return np.asarray(np.sqrt(np.sum(squares, axis=0)))


class Clip:
    """Scales a client's update down to a global L2 norm of at most `norm`.

    The norm covers everything that is sent, including moving averages of batch norm: a value outside the norm
    would not be limited.

    Source: McMahan, Ramage, Talwar, Zhang: Learning Differentially Private Recurrent Language Models,
    ICLR 2018, section 2.2 ("flat clipping").
    """

    def __init__(self, norm: float) -> None:
        self._norm = norm

    def init_state(self, shared: Arrays) -> dict[str, NDArray[Any]]:
        """Return an empty state."""
        return {}

    def apply(
        self, updates: Updates, origins: Sequence[Origin], states: StepStates
    ) -> tuple[Updates, StepStates]:
        """Scale each client's update by min(1, norm / its own norm)."""
        flat = [u.reshape(len(origins), -1) for u in updates]
        factors = self._norm / np.maximum(norms(updates), self._norm)
        for u in flat:
            u *= factors[:, None].astype(u.dtype)
        return [u.reshape(old.shape) for u, old in zip(flat, updates, strict=True)], states
