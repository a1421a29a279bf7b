"""Error feedback: what a sparse encoding leaves out of one update is added to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.update.step import StepStates, Updates
from shoal.common.origin import Origin
from shoal.common.update.codecs import Arrays, TopK, flattened, unflattened

_RESIDUAL: Final = "residual"  # its name in a client's state


class ErrorFeedback:
    """Adds a client's residual to its update, and keeps what its encoding leaves out as the new residual.

    So nothing is lost, only late: the updates decoded so far and the residual sum to the updates before
    encoding. The step comes last: clipping and noise act before it, and what they guarantee for an update
    holds for everything computed from it.

    Source: Karimireddy, Rebjock, Stich, Jaggi: Error Feedback Fixes SignSGD and other Gradient Compression
    Schemes, ICML 2019, algorithm 1. Deviation: each client keeps its own residual over the rounds that it
    takes part in, and an update is of several local steps, not a gradient.
    """

    def __init__(self, codec: TopK) -> None:
        self._codec = codec

    def init_state(self, shared: Arrays) -> dict[str, NDArray[Any]]:
        """Return a residual of zero for all values of an update, in one array."""
        return {_RESIDUAL: np.zeros_like(flattened(shared))}

    def apply(
        self, updates: Updates, origins: Sequence[Origin], states: StepStates
    ) -> tuple[Updates, StepStates]:
        """Return updates with their residuals added, and the new residuals."""
        flat = np.concatenate([u.reshape(len(origins), -1) for u in updates], axis=1) + states[_RESIDUAL]
        corrected = unflattened(flat, [u[0] for u in updates])
        return corrected, {**states, _RESIDUAL: np.where(self._codec.chosen(flat), 0, flat)}
