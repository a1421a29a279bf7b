"""The update steps of a run in order, and the codec after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.update.error_feedback import ErrorFeedback
from shoal.clients.update.step import Step, StepStates, Updates
from shoal.common.config.sections import UpdateConfig
from shoal.common.origin import Origin
from shoal.common.update.codecs import Arrays, Codec, TopK, codec_of


class Pipeline:
    """Applies steps to the updates of a stack, and encodes the update of one client.

    Args:
        steps: in order; codec: encodes updates for sending.
    """

    def __init__(self, steps: Sequence[Step], codec: Codec) -> None:
        self._steps = list(steps)
        self.codec = codec

    @classmethod
    def of(cls, steps: Sequence[Step], update: UpdateConfig) -> Pipeline:
        """Return the pipeline of `[update]`, after the steps that the privacy mechanism requires."""
        codec = codec_of(update)
        feedback = [ErrorFeedback(codec)] if isinstance(codec, TopK) and update.error_feedback else []
        return cls([*steps, *feedback], codec)

    def init_state(self, shared: Arrays) -> dict[str, NDArray[Any]]:
        """Return the initial state of all steps for one client; `shared`: weights that updates cover."""
        return {name: value for step in self._steps for name, value in step.init_state(shared).items()}

    def apply(
        self, updates: Updates, origins: Sequence[Origin], states: StepStates
    ) -> tuple[Updates, StepStates]:
        """Return the updates after all steps, and the new states of the steps.

        Args:
            updates: each (clients, ...); steps may write into them. origins: of the updates, (clients,).
            states: of the steps so far.
        """
        with np.errstate(invalid="ignore"):  # a diverged client is rejected individually
            for step in self._steps:
                updates, states = step.apply(updates, origins, states)
        return updates, states

    def encode(self, update: Arrays, origin: Origin) -> list[NDArray[Any]]:
        """Return the arrays to send for one client's update."""
        return self.codec.encode(update, lambda: origin.rng("compression"))


def feeds_back(update: UpdateConfig) -> bool:
    """Return whether clients keep a residual of their updates between rounds."""
    return update.error_feedback and update.compress == "topk"


def finite(arrays: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Return for each client whether all its values are finite, (clients,); each array is (clients, ...).

    A value that is not finite makes the sum so, and a sum takes a third of the time of looking at each
    value; if a sum overflows, each value is looked at.
    """
    found = np.ones(len(arrays[0]), np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        for a in arrays:
            flat = a.reshape(len(a), -1)
            good = np.isfinite(flat.sum(axis=1))
            found &= good if good.all() else np.isfinite(flat).all(axis=1)
    return found
