"""How a phase's messages are cut into chunks, the units that workers take.

The cut depends on the sorted clients and the config only, never on the number of workers or on who
was fast: so results that depend on the chunking are the same on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from shoal.common.messages import table

_CHUNKS = 32  # enough for idle workers to even out unequal clients
_FEW_CHUNKS = 8  # where setting up a chunk costs more than uneven workers
_SHORT = (table.EVALUATE.name, table.STATISTICS.name)  # a pass over few rows, many clients at once
_STACK = 50  # a stack of fewer clients costs about as much as this one, so there are fewer stacks then


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages that share their content and are worked on by one worker.

    Attributes:
        content: shared by all; messages: by ascending node id.
        examples: that the clients have together, for starting the longest first.
    """

    content: RecordDict
    messages: Sequence[Message]
    examples: float


def cut(
    messages: Sequence[Message], clients_per_chunk: int, examples: Callable[[Message], float]
) -> list[Chunk]:
    """Cut messages into chunks.

    Args:
        messages: of one phase; those that share one content object can share a chunk.
        clients_per_chunk: messages in a chunk; 0 cuts the phase into a fixed number of chunks.
        examples: that the client of a message has.
    """
    groups: dict[int, list[Message]] = {}
    for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):
        groups.setdefault(id(message.content), []).append(message)
    chunks = []
    for group in groups.values():
        size = clients_per_chunk or _size(len(messages), group[0])
        parts = (group[i : i + size] for i in range(0, len(group), size))
        chunks += [Chunk(part[0].content, part, sum(map(examples, part))) for part in parts]
    return chunks


def _size(messages: int, chunk: Message) -> int:
    config = chunk.content.get("config")
    if isinstance(config, ConfigRecord) and config.get("path") == "stacked":
        return -(-messages // min(_FEW_CHUNKS, max(1, round(messages / _STACK))))
    return -(-messages // (_FEW_CHUNKS if chunk.metadata.message_type in _SHORT else _CHUNKS))
