"""A Grid that logs each message passing through it, for transports that do not log themselves."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from shoal.common.audit.log import AuditLog, MessageEntry
from shoal.common.messages.names import CLIENTS
from shoal.common.messages.table import round_of
from shoal.common.sites import Sites
from shoal.common.wire.codec import pack
from shoal.server.cohort_grid import CohortGrid
from shoal.server.exchange import POOLED_NAME


class AuditGrid(CohortGrid):
    """Delegates to another Grid, and logs the messages.

    Hashes are of contents as they would be packed for the wire, without compression; a content that several
    clients share is packed once.
    """

    def __init__(self, grid: Grid, sites: Sites, log: AuditLog) -> None:
        """Wrap a Grid; `sites` names the clients behind it."""
        super().__init__(grid, sites.node_ids)
        self._sites = sites
        self._log = log
        self._rounds: dict[str, int | None] = {}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Log messages, send them, and log the replies."""
        asked = list(messages)
        self._sent(asked)
        rounds = {m.metadata.dst_node_id: round_of(m.content) for m in asked}
        replies = list(self._grid.send_and_receive(asked, timeout=timeout))
        for reply in replies:
            self._received(reply, rounds.get(reply.metadata.src_node_id))
        self._log.sync()
        return replies

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Log messages and send them."""
        pushed = list(messages)
        self._sent(pushed)
        ids = list(self._grid.push_messages(pushed))
        self._rounds |= dict(zip(ids, map(round_of, (m.content for m in pushed)), strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Fetch the replies received so far, and log them."""
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            self._received(reply, self._rounds.pop(reply.metadata.reply_to_message_id, None))
        self._log.sync()
        return replies

    def _sent(self, messages: list[Message]) -> None:
        contents = {id(message.content): message.content for message in messages}  # usually one for all
        headers = {key: pack(content).header for key, content in contents.items()}
        for message in messages:
            header, meta = headers[id(message.content)], message.metadata
            peer, number = self._name(meta.dst_node_id), round_of(message.content)
            size, digest = header.size, header.sha256.hex()
            self._log.note(MessageEntry("sent", peer, meta.message_type, number, size, digest))
        self._log.sync()

    def _received(self, reply: Message, number: int | None) -> None:
        peer, kind = self._name(reply.metadata.src_node_id), reply.metadata.message_type
        if reply.has_error():
            self._log.note(MessageEntry.failed("received", peer, kind, number, reply.error.reason or ""))
            return
        header = pack(reply.content).header
        table = reply.content.get(CLIENTS)
        listed = table.get("client") if isinstance(table, ConfigRecord) else None
        clients = listed if isinstance(listed, list) else []
        others = tuple(name for c in clients if (name := self._name(self._sites.node(int(c)))) != peer)
        size, digest = header.size, header.sha256.hex()
        self._log.note(MessageEntry("received", peer, kind, number, size, digest, others=others))

    def _name(self, node: int) -> str:
        client = self._sites.client(node)
        return self._sites.name(client) if client < self._sites.count else POOLED_NAME
