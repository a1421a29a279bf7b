"""Sends weights that training never changes to the clients that lack them, and to no other client.

Requests name frozen weights by their hash. A client that has them, mostly because it builds the same model
from the same seed, answers at once; one that has not says so, and is asked again with the weights in the
request.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from shoal.common.errors import FrozenWeightsError
from shoal.common.messages.names import FROZEN
from shoal.server.cohort_grid import CohortGrid


class FrozenWeightsGrid(CohortGrid):
    """A Grid that resends a request with the frozen weights to each client that lacks them.

    Args:
        grid: carries the messages; frozen: the weights.
    """

    def __init__(self, grid: Grid, frozen: ArrayRecord) -> None:
        super().__init__(grid, list(grid.get_node_ids()))
        self._frozen = frozen

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages, again with frozen weights to clients that lack them; return the final replies."""
        asked = {message.metadata.dst_node_id: message for message in messages}
        replies = {
            r.metadata.src_node_id: r for r in self._grid.send_and_receive(asked.values(), timeout=timeout)
        }
        lacking = [asked[node] for node, reply in replies.items() if _lacks(reply)]
        for again in (
            self._grid.send_and_receive(self._with_frozen(lacking), timeout=timeout) if lacking else ()
        ):
            replies[again.metadata.src_node_id] = again
        return [replies[node] for node in sorted(replies)]

    def _with_frozen(self, messages: Iterable[Message]) -> list[Message]:
        """Return the same requests with the weights; requests that share a content still share it."""
        contents: dict[int, RecordDict] = {}
        found = []
        for message in messages:
            meta, old = message.metadata, message.content
            content = contents.setdefault(id(old), RecordDict({**old, FROZEN: self._frozen}))
            found.append(Message(content, meta.dst_node_id, meta.message_type, group_id=meta.group_id))
        return found


def resending(grid: Grid, frozen: ArrayRecord) -> Grid:
    """Return a Grid that resends frozen weights to clients that lack them; the same one if there are none."""
    return FrozenWeightsGrid(grid, frozen) if len(frozen) else grid


def _lacks(reply: Message) -> bool:
    return reply.has_error() and (reply.error.reason or "").startswith(FrozenWeightsError.__name__)
