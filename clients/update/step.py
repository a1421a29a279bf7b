"""The interface of a step between local training and encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from shoal.common.origin import Origin

Arrays = Sequence[NDArray[Any]]

Updates = list[NDArray[Any]]  # one array for each shared weight, each (clients, ...)
StepStates = Mapping[str, NDArray[Any]]  # name → (clients, ...); steps without state return them unchanged


class Step(Protocol):
    """One step. It may write into the updates that it is given, and returns the new updates."""

    def init_state(self, shared: Arrays) -> dict[str, NDArray[Any]]:
        """Return one client's initial state, by names of the step's own; empty for a step without state.

        Args:
            shared: weights that updates cover.
        """
        ...

    def apply(
        self, updates: Updates, origins: Sequence[Origin], states: StepStates
    ) -> tuple[Updates, StepStates]:
        """Return the updates after this step, and the clients' states.

        Args:
            updates: of floating point, each (clients, ...).
            origins: of the updates, (clients,).
            states: of the steps, for these clients, under names of their own; never written into.
        """
        ...
