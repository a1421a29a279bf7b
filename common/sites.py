"""The clients of a federation as the server knows them: a node id and a name each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIRST_NODE_ID = 2  # Flower's SuperLink is node 1


@dataclass(frozen=True, slots=True)
class Sites:
    """Maps client indices to node ids and names; costs nothing for clients that are not asked.

    Attributes:
        count: number of clients; they have the indices 0 to count - 1.
        name: client index → display name.
    """

    count: int
    name: Callable[[int], str]

    @property
    def node_ids(self) -> range:
        """All node ids, by client index."""
        return range(FIRST_NODE_ID, FIRST_NODE_ID + self.count)

    def node(self, client: int) -> int:
        """Return the node id of a client."""
        return FIRST_NODE_ID + client

    def client(self, node_id: int) -> int:
        """Return the index of the client behind a node id."""
        return node_id - FIRST_NODE_ID

    def nodes(self, clients: Sequence[int]) -> list[int]:
        """Return the node ids of clients."""
        return [self.node(int(client)) for client in clients]
