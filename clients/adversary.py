"""The seam at which a simulation plays malicious clients; a real site has nobody behind it.

What attacks do is in `simulations/attacks`. Nothing that a site runs imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from shoal.common.origin import Origin
from shoal.common.schema import InputSpec

Arrays = Sequence[NDArray[Any]]  # one for each shared weight
# client indices → the updates that those would send if they were honest; who cannot train is left out
Honest = Callable[[Sequence[int]], Sequence[Arrays]]


class Adversary(Protocol):
    """Plays the malicious clients of one process."""

    def poisoned(
        self, x: NDArray[Any], y: NDArray[Any], spec: InputSpec, origin: Origin
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the rows that a client trains on, which `spec` describes: its own, unless it attacks."""
        ...

    def altered(self, update: Arrays, origin: Origin, honest: Honest) -> list[NDArray[Any]]:
        """Return the update that a client sends: what it has learnt, unless it is malicious.

        Args:
            update: what an honest client would send, before it is encoded; origin: who sends it.
            honest: returns what other malicious clients would send.
        """
        ...
