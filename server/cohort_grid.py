"""A view of a Grid that contains only one round's cohort.

Stock strategies list every node several times a round and sample from Python's global generator. The
round loop samples the cohort itself, by seed, and gives the strategy this view with fraction 1, so that
sampling is reproducible and a population of a million costs the strategy nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from shoal.common.flower_shim import Run


class CohortGrid(Grid):
    """Delegates everything to another Grid, except the list of nodes."""

    def __init__(self, grid: Grid, node_ids: Sequence[int]) -> None:
        self._grid = grid
        self._node_ids = node_ids

    def get_node_ids(self) -> Sequence[int]:
        """Return the cohort's node ids."""
        return self._node_ids

    def set_run(self, run: Run) -> None:
        """Set the run of the underlying Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the underlying Grid."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; part of Flower's interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting for replies."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies received so far."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for their replies."""
        return self._grid.send_and_receive(messages, timeout=timeout)
