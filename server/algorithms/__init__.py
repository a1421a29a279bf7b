"""The server halves of federated algorithms, by the name of the strategy that uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from shoal.server.algorithms.algorithm import ServerAlgorithm
from shoal.server.algorithms.scaffold import ScaffoldServer

_ALGORITHMS: Final[Mapping[str, type[ServerAlgorithm]]] = {one.name: one for one in (ScaffoldServer,)}


def server_algorithm(strategy: str, trainable: Sequence[NDArray[Any]]) -> ServerAlgorithm:
    """Return the server half of a strategy; plain averaging for a strategy that has none of its own."""
    return _ALGORITHMS.get(strategy, ServerAlgorithm)(trainable)
