"""How a phase's messages are cut into chunks, the units that workers take.

The cut depends on the sorted clients and the config only, never on the number of workers or on who
was fast: so results that depend on the chunking are the same on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict

_CHUNKS_WANTED = 32  # enough for idle workers to even out unequal clients


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages that share their content and are worked on by one worker.

    Attributes:
        content: shared by all; messages: by ascending node id.
        cost: expected work in any unit, for starting the longest first.
    """

    content: RecordDict
    messages: Sequence[Message]
    cost: float


def cut(messages: Sequence[Message], most_clients: int, cost: Callable[[Message], float]) -> list[Chunk]:
    """Cut messages into chunks.

    Args:
        messages: of one phase; those that share one content object can share a chunk.
        most_clients: most messages in a chunk, at least 1.
        cost: expected work of a message.
    """
    groups: dict[int, list[Message]] = {}
    for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):
        groups.setdefault(id(message.content), []).append(message)
    size = min(most_clients, max(1, len(messages) // _CHUNKS_WANTED))
    return [
        Chunk(group[0].content, group[i : i + size], sum(cost(m) for m in group[i : i + size]))
        for group in groups.values()
        for i in range(0, len(group), size)
    ]
