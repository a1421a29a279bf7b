"""One exchange with clients: send, wait, order the replies, reject unusable ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final, cast

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.common.errors import BudgetError, DisclosureError, NonFiniteError, ShoalError, TooFewRepliesError
from shoal.common.events import ClientRow, Phase
from shoal.common.flower_shim import client_error, number_message
from shoal.common.messages.names import ARRAYS, CLIENTS, EXAMPLES, UPDATE_BYTES
from shoal.common.messages.replies import client_rows
from shoal.common.messages.table import message_type
from shoal.common.record_size import content_bytes, record_bytes
from shoal.common.sites import Sites

_MOST_REASONS = 5  # failures listed in an error text
POOLED_NAME = "(pooled)"  # the simulated client that holds all clients' rows


@dataclass(frozen=True, slots=True)
class Exchange:
    """The replies to one phase.

    Attributes:
        replies: ordered by ascending node id, errors included. One may stand for several clients of one
            process: their mean by examples.
        rows: one for each client that was sent a message, in the same order.
        bytes_moved: payload of all replies; one that stands for several clients counts once.
    """

    replies: Sequence[Message]
    rows: Sequence[ClientRow]
    bytes_moved: int = 0

    @property
    def accepted(self) -> list[Message]:
        """The replies without an error."""
        return [reply for reply in self.replies if reply.has_content()]

    @property
    def answered(self) -> int:
        """Number of clients that replied without an error."""
        return sum(not row.error for row in self.rows)

    def is_enough(self, min_success: float) -> bool:
        """Return whether the given share of clients replied, and at least one."""
        good = self.answered
        return good > 0 and good >= min_success * len(self.rows)

    def merged(self, again: Exchange) -> Exchange:
        """Return this exchange, with the results of a retry for the clients without a reply."""
        rows = {row.client: row for row in self.rows}
        for row in again.rows:
            before = rows[row.client]
            rows[row.client] = replace(row, bytes_down=row.bytes_down + before.bytes_down)
        replies = [*self.accepted, *again.replies]
        ordered = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        return Exchange(ordered, list(rows.values()), self.bytes_moved + again.bytes_moved)

    def joined(self, other: Exchange) -> Exchange:
        """Return this exchange followed by another one, of other clients or another dispatch."""
        moved = self.bytes_moved + other.bytes_moved
        return Exchange([*self.replies, *other.replies], [*self.rows, *other.rows], moved)

    @property
    def bytes_up(self) -> int:
        """Payload from clients to server."""
        return sum(row.bytes_up for row in self.rows)

    @property
    def bytes_down(self) -> int:
        """Payload from server to clients."""
        return sum(row.bytes_down for row in self.rows)


NOTHING: Final = Exchange([], [])


def ask_enough(
    grid: Grid,
    sites: Sites,
    messages: Iterable[Message],
    phase: Phase,
    round_number: int,
    scenario: Scenario,
    what: str,
    *,
    say: Callable[[str], None] = lambda text: None,
    usable: Callable[[RecordDict], None] = lambda content: None,
) -> Exchange:
    """Ask as `ask` does, and retry clients without a reply while there are too few.

    Args:
        grid, sites, messages, phase, round_number, usable: as for `ask`.
        scenario: gives the required share, the number of retries, and the timeout.
        what: names the phase in the error; say: called with a line of progress for each retry.

    Raises:
        TooFewRepliesError, NonFiniteError: as `require_replies` does.
    """
    asked, config = list(messages), scenario.server
    exchange = ask(grid, sites, asked, phase, round_number, scenario.resources.timeout_s, usable)
    for _ in range(config.round_retries):
        if exchange.is_enough(config.min_success):
            break
        failed = {sites.node(row.client) for row in exchange.rows if row.error}
        say(f"{what}: asking {len(failed)} of {len(asked)} clients again")
        again = [message for message in asked if message.metadata.dst_node_id in failed]
        exchange = exchange.merged(
            ask(grid, sites, again, phase, round_number, scenario.resources.timeout_s, usable)
        )
    require_replies(exchange, config.min_success, what)
    return exchange


def ask(
    grid: Grid,
    sites: Sites,
    messages: Iterable[Message],
    phase: Phase,
    round_number: int,
    timeout_s: float,
    usable: Callable[[RecordDict], None] = lambda content: None,
) -> Exchange:
    """Send messages and return the replies.

    The order of replies does not depend on who answered first, so the bits of a sum over them do not either.
    An unusable reply becomes an error reply, which counts as a failure and is never averaged: one that
    lacks a field or holds more than its type allows, an update whose shapes do not match the model, a number
    that is not finite, an answer for clients that were not asked.

    Args:
        grid: carries the messages.
        sites: names the clients behind node ids.
        messages: at most one per node.
        phase: their phase.
        round_number: the round, 0 before the first.
        timeout_s: seconds to wait for all replies.
        usable: raises a `ShoalError` for the content of a reply that is unusable for other reasons.
    """
    asked = sorted(messages, key=lambda message: message.metadata.dst_node_id)
    contents = {id(message.content): message.content for message in asked}  # usually one, shared by all
    sizes = {key: content_bytes(content) for key, content in contents.items()}
    down = {m.metadata.dst_node_id: sizes[id(m.content)] for m in asked}
    found = {r.metadata.src_node_id: r for r in grid.send_and_receive(asked, timeout=timeout_s)}
    silent = down.keys() - found.keys()
    replies = [
        r
        for message in asked
        if message.metadata.dst_node_id in found
        for r in _refuse_unusable(sites, found[message.metadata.dst_node_id], message, silent, usable)
    ]
    replied = {node: entry for reply in replies for node, entry in _client_replies(sites, reply).items()}
    nothing = _ClientReply(error="no reply before the deadline")
    rows = [
        _row(sites, node, replied.get(node, nothing), phase, round_number, size)
        for node, size in down.items()
    ]
    moved = sum(content_bytes(reply.content) for reply in found.values() if reply.has_content())
    return Exchange(replies, rows, moved)


def require_replies(exchange: Exchange, min_success: float, what: str) -> None:
    """Raise unless the given share of clients replied without an error.

    Raises:
        NonFiniteError: if all failures are non-finite numbers.
        BudgetError: if all failures are clients whose privacy budget is spent.
        TooFewRepliesError: otherwise, with the first reasons.
    """
    if exchange.is_enough(min_success):
        return
    asked, failed = len(exchange.rows), [row for row in exchange.rows if row.error]
    reasons = [f"{row.name}: {row.error}" for row in failed[:_MOST_REASONS]]
    more = len(failed) - len(reasons)
    listed = "\n  ".join([*reasons, f"and {more} more"] if more else reasons)
    text = (
        f"{what}: {exchange.answered} of {asked} clients answered, server.min_success = {min_success:g} "
        f"requires {math.ceil(min_success * asked)}. Failures:\n  {listed}"
    )
    for kind in (NonFiniteError, BudgetError):
        if failed and all(row.error.startswith(kind.__name__) for row in failed):
            raise kind(text)
    raise TooFewRepliesError(text)


def _refuse_unusable(
    sites: Sites,
    reply: Message,
    request: Message,
    silent: AbstractSet[int],
    usable: Callable[[RecordDict], None],
) -> list[Message]:
    """Return a reply, or an error reply for each client behind it if it is unusable."""
    if reply.has_error():
        return [reply]
    nodes = [reply.metadata.src_node_id]
    try:
        nodes = _nodes(sites, reply, silent)
        _check(reply.content, request)
        usable(reply.content)
    except ShoalError as error:
        reason = f"{type(error).__name__}: {error.message}"
        return [_as_error(reply, node, reason) for node in nodes]
    return [reply]


def _nodes(sites: Sites, reply: Message, silent: AbstractSet[int]) -> list[int]:
    """Return the nodes that a reply stands for: its sender, or all clients of a process that it answers for.

    Args:
        sites: the clients; reply: of one or several of them.
        silent: nodes that were sent a message and have not replied themselves.

    Raises:
        DisclosureError: the table of clients is malformed, or names one that the sender may not answer for.
    """
    sender, table = reply.metadata.src_node_id, reply.content.get(CLIENTS)
    if table is None:
        return [sender]
    clients = table.get("client") if isinstance(table, ConfigRecord) else None
    if not isinstance(clients, list) or not all(isinstance(c, int) and 0 <= c < sites.count for c in clients):
        raise DisclosureError("the client table in a reply has no valid list of clients")
    if not all(_is_column(values, len(clients)) for values in table.values()):
        raise DisclosureError("the client table in a reply lacks a number for some client")
    nodes = sites.nodes(cast("list[int]", clients))
    if sender not in nodes or len(set(nodes)) < len(nodes) or not {*nodes} - {sender} <= silent:
        raise DisclosureError("a reply answers for clients that were not asked together with its sender")
    return nodes


def _is_column(values: object, rows: int) -> bool:
    return (
        isinstance(values, list) and len(values) == rows and all(isinstance(v, int | float) for v in values)
    )


def _check(content: RecordDict, request: Message) -> None:
    """Reject a reply that lacks a field, holds a field it may not, or cannot be averaged.

    Clients enforce the same schema; the server does not rely on it.

    Raises:
        DisclosureError, NonFiniteError: what is wrong, without the values.
    """
    kind = message_type(request.metadata.message_type)
    kind.reply.check(kind.name, content)
    kind.reply.require(content)


def _as_error(reply: Message, node: int, reason: str) -> Message:
    asked = Message(RecordDict(), node, reply.metadata.message_type)
    number_message(asked)
    return Message(client_error(reason), reply_to=asked)


@dataclass(frozen=True, slots=True)
class _ClientReply:
    """One client's part of a reply: an error, or its numbers and the bytes it took to send them."""

    error: str = ""
    bytes_up: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)


def _client_replies(sites: Sites, reply: Message) -> dict[int, _ClientReply]:
    """Return each client's part of a reply, by node id."""
    node = reply.metadata.src_node_id
    if reply.has_error():
        return {node: _ClientReply(error=reply.error.reason or "no reason given")}
    content = reply.content
    table = content.get(CLIENTS)
    if not isinstance(table, ConfigRecord):
        numbers: dict[str, float] = {}
        for record in content.metric_records.values():
            numbers |= {k: float(v) for k, v in record.items() if not isinstance(v, list)}
        return {node: _ClientReply("", _bytes_up(content, numbers), numbers)}
    rows = client_rows(table)
    # What each would have sent: its own update and its row of the table.
    alone = RecordDict({name: record for name, record in content.items() if name != CLIENTS})
    size = _bytes_up(alone, next(iter(rows.values())))
    return {sites.node(client): _ClientReply("", size, numbers) for client, numbers in rows.items()}


def _bytes_up(content: RecordDict, numbers: Mapping[str, float]) -> int:
    """Return the payload of a client's reply; for a mean, of the reply that it would have sent alone.

    That reply holds the client's own encoded update instead of the mean, and no `UPDATE_BYTES`.
    """
    size = content_bytes(content)
    if UPDATE_BYTES not in numbers:
        return size
    mean = record_bytes(content.array_records[ARRAYS])
    length = record_bytes(MetricRecord({UPDATE_BYTES: 0}))
    return size - mean - length + int(numbers[UPDATE_BYTES])


def _row(
    sites: Sites, node: int, reply: _ClientReply, phase: Phase, round_number: int, bytes_down: int
) -> ClientRow:
    client, numbers = sites.client(node), dict(reply.numbers)
    numbers.pop(UPDATE_BYTES, None)  # counted in bytes_up
    return ClientRow(
        round=round_number,
        client=client,
        name=sites.name(client) if client < sites.count else POOLED_NAME,
        phase=phase,
        examples=int(numbers.pop(EXAMPLES, 0)),
        seconds=numbers.pop("seconds", 0.0),
        bytes_up=reply.bytes_up,
        bytes_down=bytes_down,
        metrics=numbers,
        error=reply.error,
    )
