"""One exchange with clients: send, wait, put replies in order, refuse what cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from common import records
from common.errors import NonFiniteError, TooFewRepliesError
from common.events import ClientRow, Phase
from common.flower_shim import client_error, number_message
from common.records import ARRAYS, CLIENTS, EXAMPLES, UPDATE_BYTES
from server.sites import Sites

_MOST_REASONS = 5  # failures that an error text lists
POOLED_NAME = "(pooled)"  # the simulation's client that holds everybody's rows


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back from one phase.

    Attributes:
        replies: of the clients that answered, by ascending node id, errors included. One may stand for
            several clients of one process: their mean by examples.
        rows: one for each client that was asked, in the same order.
    """

    replies: Sequence[Message]
    rows: Sequence[ClientRow]

    @property
    def accepted(self) -> list[Message]:
        """The replies without an error."""
        return [reply for reply in self.replies if reply.has_content()]

    @property
    def bytes_up(self) -> int:
        """Payload from clients to server."""
        return sum(row.bytes_up for row in self.rows)

    @property
    def bytes_down(self) -> int:
        """Payload from server to clients."""
        return sum(row.bytes_down for row in self.rows)


def ask(
    grid: Grid, sites: Sites, messages: Iterable[Message], phase: Phase, round_number: int, timeout_s: float
) -> Exchange:
    """Send messages and return the replies.

    The order of replies does not depend on who answered first, so neither do the bits of a sum over
    them. An update that holds a non-finite number or has other shapes than what was sent becomes an
    error reply: it is counted as a failure and never averaged.

    Args:
        grid: carries the messages.
        sites: names the clients behind node ids.
        messages: at most one a node.
        phase: what they ask for.
        round_number: the round, 0 before the first.
        timeout_s: seconds to wait for all replies.
    """
    asked = sorted(messages, key=lambda message: message.metadata.dst_node_id)
    contents = {id(message.content): message.content for message in asked}  # mostly one for all
    sizes = {key: records.content_bytes(content) for key, content in contents.items()}
    down = {m.metadata.dst_node_id: sizes[id(m.content)] for m in asked}
    sent = {m.metadata.dst_node_id: m.content.get(ARRAYS) for m in asked}
    found = {r.metadata.src_node_id: r for r in grid.send_and_receive(asked, timeout=timeout_s)}
    replies = [r for node in down if node in found for r in _refuse_unusable(sites, found[node], sent)]
    told = {node: entry for reply in replies for node, entry in _told(sites, reply).items()}
    silent = _Told(error="no reply before the deadline")
    rows = [
        _row(sites, node, told.get(node, silent), phase, round_number, size) for node, size in down.items()
    ]
    return Exchange(replies, rows)


def require_replies(exchange: Exchange, min_success: float, what: str) -> None:
    """Raise unless the given share of clients answered without an error.

    Raises:
        NonFiniteError: if all failures are numbers that are not finite.
        TooFewRepliesError: otherwise, with the first reasons.
    """
    asked, failed = len(exchange.rows), [row for row in exchange.rows if row.error]
    good = asked - len(failed)
    if good and good >= min_success * asked:
        return
    reasons = [f"{row.name}: {row.error}" for row in failed[:_MOST_REASONS]]
    more = len(failed) - len(reasons)
    listed = "\n  ".join([*reasons, f"and {more} more"] if more else reasons)
    text = (
        f"{what}: {good} of {asked} clients answered, server.min_success = {min_success:g} wants "
        f"{math.ceil(min_success * asked)}. Failures:\n  {listed}"
    )
    if failed and all(row.error.startswith("NonFiniteError") for row in failed):
        raise NonFiniteError(text)
    raise TooFewRepliesError(text)


def _refuse_unusable(sites: Sites, reply: Message, sent: Mapping[int, object]) -> list[Message]:
    """Return a reply, or an error reply for each client behind it if its update cannot be used."""
    expected = sent[reply.metadata.src_node_id]
    if reply.has_error() or not isinstance(expected, ArrayRecord):
        return [reply]
    update = reply.content.get(ARRAYS)
    if not isinstance(update, ArrayRecord):
        return [reply]
    if not records.same_shapes(update, expected):
        reason = "DisclosureError: the update is not shaped as the model's weights"
    elif not records.is_finite(update):
        reason = "NonFiniteError: the update holds NaN or infinity"
    else:
        return [reply]
    return [_as_error(reply, node, reason) for node in _nodes(sites, reply)]


def _nodes(sites: Sites, reply: Message) -> list[int]:
    table = reply.content.get(CLIENTS)
    if not isinstance(table, ConfigRecord):
        return [reply.metadata.src_node_id]
    return sites.nodes(cast("list[int]", table["client"]))


def _as_error(reply: Message, node: int, reason: str) -> Message:
    asked = Message(RecordDict(), node, reply.metadata.message_type)
    number_message(asked)
    return Message(client_error(reason), reply_to=asked)


@dataclass(frozen=True, slots=True)
class _Told:
    """What one client told: an error, or numbers and how many bytes it took to send them."""

    error: str = ""
    bytes_up: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)


def _told(sites: Sites, reply: Message) -> dict[int, _Told]:
    """Return what each client behind a reply told, by node id."""
    node = reply.metadata.src_node_id
    if reply.has_error():
        return {node: _Told(error=reply.error.reason or "no reason given")}
    content = reply.content
    table = content.get(CLIENTS)
    if not isinstance(table, ConfigRecord):
        numbers: dict[str, float] = {}
        for record in content.metric_records.values():
            numbers |= {k: float(v) for k, v in record.items() if not isinstance(v, list)}
        return {node: _Told("", _bytes_up(content, numbers), numbers)}
    rows = records.client_rows(table)
    # What each would have sent: weights of its own, and its row of the table.
    alone = RecordDict({name: record for name, record in content.items() if name != CLIENTS})
    size = _bytes_up(alone, next(iter(rows.values())))
    return {sites.node(client): _Told("", size, numbers) for client, numbers in rows.items()}


def _bytes_up(content: RecordDict, numbers: Mapping[str, float]) -> int:
    """Return the payload of a reply; a compressed update counts as it would travel."""
    size = records.content_bytes(content)
    if UPDATE_BYTES not in numbers:
        return size
    in_full = sum(records.content_bytes(RecordDict({ARRAYS: r})) for r in content.array_records.values())
    return size - in_full + int(numbers[UPDATE_BYTES])


def _row(sites: Sites, node: int, told: _Told, phase: Phase, round_number: int, bytes_down: int) -> ClientRow:
    client, numbers = sites.client(node), dict(told.numbers)
    numbers.pop(UPDATE_BYTES, None)  # it is in bytes_up
    return ClientRow(
        round=round_number,
        client=client,
        name=sites.name(client) if client < sites.count else POOLED_NAME,
        phase=phase,
        examples=int(numbers.pop(EXAMPLES, 0)),
        seconds=numbers.pop("seconds", 0.0),
        bytes_up=told.bytes_up,
        bytes_down=bytes_down,
        metrics=numbers,
        error=told.error,
    )
