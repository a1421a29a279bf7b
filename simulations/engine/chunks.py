"""Divides a phase's messages into chunks, the units of work of the workers.

The chunks depend on the sorted clients and the config only, never on the number or speed of workers, so
results that depend on the chunks are the same on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from shoal.common.messages.names import CONFIG
from shoal.common.messages.table import EVALUATE, STATISTICS
from shoal.common.update.mean import group_size

_SHORT = (EVALUATE.name, STATISTICS.name)  # a pass over few rows, many clients at once


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages that share their content and are processed by one worker.

    Attributes:
        content: shared by all; messages: by ascending node id.
        examples: total rows of the clients, for starting the longest chunks first.
    """

    content: RecordDict
    messages: Sequence[Message]
    examples: float


def make_chunks(
    messages: Sequence[Message], clients_per_chunk: int, examples: Callable[[Message], float]
) -> list[Chunk]:
    """Divide messages into chunks.

    Args:
        messages: of one phase; those that share one content object can share a chunk.
        clients_per_chunk: messages in a chunk; 0 for a fixed number of chunks per phase.
        examples: returns the rows of a message's client.
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


def _size(messages: int, first: Message) -> int:
    config = first.content.get(CONFIG)
    stacked = isinstance(config, ConfigRecord) and config.get("execution-mode") == "stacked"
    return group_size(messages, stacked=stacked, short=first.metadata.message_type in _SHORT)
