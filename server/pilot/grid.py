"""A Flower Grid over clients that are connected by gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from shoal.common.audit.log import AuditLog
from shoal.common.errors import TransportError
from shoal.common.flower_shim import Run, client_error, number_message
from shoal.common.messages.names import CLIENTS
from shoal.common.messages.table import round_of
from shoal.common.profiling import span
from shoal.common.sites import Sites
from shoal.common.wire.codec import Packed, pack
from shoal.server.pilot.grpc_server import ClientAnswer, ClientTask, TransportServer
from shoal.server.pilot.meter import WireLoad


class TransportGrid(Grid):
    """Sends messages through a `TransportServer` and returns replies in ascending order of node id."""

    def __init__(
        self,
        server: TransportServer,
        sites: Sites,
        run: Run,
        compression: Literal["none", "zstd"] = "none",
        log: AuditLog | None = None,
    ) -> None:
        self._server = server
        self._log = log
        if log is not None:
            server.on_message = log.note
        self._compression = compression
        self._sites = sites
        self._run = run

    def set_run(self, run: Run) -> None:
        """Set Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def traffic(self) -> Sequence[WireLoad]:
        """Return the traffic so far, by client."""
        return self._server.meter.clients

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

    def get_node_ids(self) -> range:
        """Return all node ids, including those of clients that are not connected now."""
        return self._sites.node_ids

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Not supported: this Grid sends messages and waits for the replies in one call."""
        raise TransportError("push_messages is not supported over gRPC", hint="use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Not supported, like `push_messages`."""
        raise TransportError("pull_messages is not supported over gRPC", hint="use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages to their clients and return the replies that arrived in time.

        Args:
            messages: to nodes of this Grid; messages that share a content object are packed once.
            timeout: seconds to wait.
        """
        sent = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        for message in sent:
            number_message(message)
        with span("broadcast"):
            contents = {id(message.content): message.content for message in sent}  # mostly one for all
            packed = {key: pack(content, self._compression) for key, content in contents.items()}
        asked = [self._asked(message, packed[id(message.content)]) for message in sent]
        with span("wait"):
            answers = self._server.exchange(asked, timeout)
        if self._log is not None:
            self._log.sync()
        replies = [
            _reply(message, one.client, answer)
            for message, one, answer in zip(sent, asked, answers, strict=True)
            if answer is not None
        ]
        for reply in replies:
            number_message(reply)
        return replies

    def _asked(self, message: Message, packed: Packed) -> ClientTask:
        meta = message.metadata
        client, number = self._sites.client(meta.dst_node_id), round_of(message.content)
        return ClientTask(client, meta.message_type, meta.group_id, packed, number)


def _reply(message: Message, client: int, answer: ClientAnswer) -> Message:
    if answer.content is None:
        return Message(client_error(answer.error), reply_to=message)
    table = answer.content.get(CLIENTS)
    if table is not None and (not isinstance(table, ConfigRecord) or table.get("client") != [client]):
        return Message(client_error("DisclosureError: a site may answer only for itself"), reply_to=message)
    return Message(answer.content, reply_to=message)
