"""The steps of a run in their order, applied to what a stack of clients has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.update.clip import Clip
from shoal.clients.update.compress import Float16, Int8
from shoal.clients.update.noise import GaussianNoise
from shoal.clients.update.step import Step, Updates
from shoal.common.config import UpdateConfig
from shoal.common.origin import Origin
from shoal.common.privacy.noise import Source


class Pipeline:
    """Applies steps to updates; without any, weights pass untouched.

    Args:
        steps: in their order; as_updates: let the update itself leave, not the weights that it leads to.
    """

    def __init__(self, steps: Sequence[Step], *, as_updates: bool = False) -> None:
        self._steps = list(steps)
        self.as_updates = as_updates

    def apply(
        self, start: Sequence[NDArray[Any]], trained: Updates, origins: Sequence[Origin]
    ) -> tuple[Updates, NDArray[np.bool_]]:
        """Return the weights that leave, and of which clients they may: all numbers are finite.

        They are `start` plus the update after all steps, or that update alone. Integers among the weights
        have no update to speak of: they leave as they are, or as zeros.

        Args:
            start: the server's weights; trained: the clients' own, each (clients, ...), finite.
            origins: whose they are, (clients,).
        """
        if not self._steps and not self.as_updates:
            return trained, np.ones(len(origins), np.bool_)
        moving = [k for k, w in enumerate(trained) if np.issubdtype(w.dtype, np.floating)]
        updates = [trained[k] - start[k] for k in moving]
        with np.errstate(invalid="ignore"):  # a client that has diverged is refused by itself
            for step in self._steps:
                updates = step.apply(updates, origins)
        left = [np.zeros_like(w) for w in trained] if self.as_updates else list(trained)
        for k, update in zip(moving, updates, strict=True):
            left[k] = update if self.as_updates else start[k] + update
        return left, finite(left)

    def wire_bytes(self, weights: Sequence[NDArray[Any]]) -> int | None:
        """Return the bytes in which an update would travel, or `None` if no step compresses."""
        numbers = sum(w.size for w in weights)
        found = [step.wire_bytes(numbers, len(weights)) for step in self._steps]
        return next((size for size in reversed(found) if size is not None), None)


def finite(weights: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Tell of each client whether all its numbers are finite; weights are (clients, ...) each."""
    clients = len(weights[0])
    found = np.ones(clients, np.bool_)
    for w in weights:
        found &= np.isfinite(w).reshape(clients, -1).all(axis=1)
    return found


def make_pipeline(config: UpdateConfig, *, source: Source = "seeded", as_updates: bool = False) -> Pipeline:
    """Return the steps that a config asks for: clip, then noise, then compress.

    Args:
        config: what to do; source: of the noise.
        as_updates: let the update itself leave.
    """
    steps: list[Step] = []
    if config.clip_norm is not None:
        steps.append(Clip(config.clip_norm))
    if config.noise_stddev:
        steps.append(GaussianNoise(config.noise_stddev, source))
    if config.compress == "float16":
        steps.append(Float16())
    elif config.compress == "int8":
        steps.append(Int8())
    return Pipeline(steps, as_updates=as_updates)
