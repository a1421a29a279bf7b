"""The server half of a federated algorithm: what it sends to clients, and what it makes of what they send.

It works beside the strategy, which turns updates into the next model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flwr.app import ArrayRecord
from numpy.typing import NDArray


class ServerAlgorithm:
    """Plain federated averaging, and the base of the others: nothing is sent beside the model."""

    name: ClassVar[str] = "plain"

    def __init__(self, trainable: Sequence[NDArray[Any]]) -> None:
        """Prepare for a run.

        Args:
            trainable: the model's trainable weights at the start.
        """

    def request(self) -> ArrayRecord | None:
        """Return the arrays that every client is sent beside the model; `None` for none."""
        return None

    def beside(self) -> Sequence[NDArray[Any]]:
        """Return arrays shaped and typed as what every client sends beside its update; none for nothing."""
        return ()

    def aggregate(self, extra: Sequence[NDArray[Any]], share: float) -> None:
        """Take what clients have sent beside their updates.

        Args:
            extra: weighted mean over the clients that answered; empty where they sent nothing.
            share: of all clients of the federation that answered, in (0, 1].
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned."""
