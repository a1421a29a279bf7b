"""The interface through which a simulation plays malicious clients; a real site has no implementation.

The attacks are in `simulations/attacks`. Nothing that a site runs imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from shoal.common.origin import Origin
from shoal.common.schema import InputSpec

Arrays = Sequence[NDArray[Any]]  # one for each shared weight
# client indices → the honest updates of those clients; clients that cannot train are left out
Honest = Callable[[Sequence[int]], Sequence[Arrays]]


class Adversary(Protocol):
    """Plays the malicious clients of a process."""

    def poisoned(
        self, x: NDArray[Any], y: NDArray[Any], spec: InputSpec, origin: Origin
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the rows that a client trains on, described by `spec`: its own, unless it attacks."""
        ...

    def altered(self, update: Arrays, origin: Origin, honest: Honest) -> list[NDArray[Any]]:
        """Return the update that a client sends: the honest one, unless the client is malicious.

        Args:
            update: the honest update, before it is encoded; origin: its client and dispatch.
            honest: returns the honest updates of other malicious clients.
        """
        ...
