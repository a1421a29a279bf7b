"""The server half of a federated algorithm: arrays it sends with the model, and how it uses the replies.

It complements the strategy, which turns updates into the next model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flwr.app import ArrayRecord
from numpy.typing import NDArray


class ServerAlgorithm:
    """Plain federated averaging, and the base class: nothing is sent with the model."""

    name: ClassVar[str] = "plain"

    def __init__(self, trainable: Sequence[NDArray[Any]]) -> None:
        """Prepare for a run.

        Args:
            trainable: the model's trainable weights at the start.
        """

    def request(self) -> ArrayRecord | None:
        """Return the arrays to send to every client with the model; `None` for none."""
        return None

    def extra_like(self) -> Sequence[NDArray[Any]]:
        """Return arrays shaped and typed as what each client sends with its update; empty for nothing."""
        return ()

    def aggregate(self, extra: Sequence[NDArray[Any]], share: float) -> None:
        """Use the arrays that clients sent with their updates.

        Args:
            extra: weighted mean over the clients that answered; empty where they sent nothing.
            share: fraction of the federation's clients that answered, in (0, 1].
        """

    def state(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
