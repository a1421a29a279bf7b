"""The contract of a step of the update pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from shoal.common.origin import Origin

Updates = list[NDArray[Any]]  # one array a weight of the model, each (clients, ...)


class Step(Protocol):
    """One step. It may write into the arrays that it is given, and returns those that go on."""

    def apply(self, updates: Updates, origins: Sequence[Origin]) -> Updates:
        """Return the updates after this step.

        Args:
            updates: of floating point, in the order of `keras.Model.get_weights`, each (clients, ...).
            origins: whose they are, (clients,).
        """
        ...

    def wire_bytes(self, numbers: int, arrays: int) -> int | None:
        """Return the bytes in which an update now travels, or `None` if this step does not change them.

        Args:
            numbers: that an update has; arrays: in which they are.
        """
        ...
