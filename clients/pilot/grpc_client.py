"""The client side of the transport: connects to the server, runs its tasks, and reconnects."""

from __future__ import annotations

import logging
import queue
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import grpc
from flwr.app import RecordDict

from shoal.clients.worker import Job, Runs
from shoal.common.audit.log import Direction, MessageEntry
from shoal.common.errors import ShoalError, TransportError
from shoal.common.messages.table import round_of
from shoal.common.printable import printable
from shoal.common.sites import FIRST_NODE_ID
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import Packed, Unpacking, pack
from shoal.common.wire.protocol import LIMITS, MOST_ERROR, PROTOCOL, SERVICE

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
# Errors that a retry cannot fix.
_HOPELESS: Final = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED)
_log = logging.getLogger("shoal.transport")


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply that is kept until the server has received it: `packed`, or otherwise the `error`."""

    error: str
    packed: Packed | None


class TransportClient:
    """One client of a federation."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        make_worker: Callable[[wire.Welcome], Runs],
        *,
        version: str,
        name: str = "",
        on_message: Callable[[MessageEntry], None] = lambda entry: None,
        refuses: Callable[[str], str] = lambda message_type: "",
        compression: Literal["none", "zstd"] = "none",
        most_bytes: int = 1 << 30,
        patience_s: float = 600.0,
    ) -> None:
        """Prepare to connect.

        Args:
            address: "host:port" of the server; credentials: `None` for a server without TLS.
            make_worker: creates the runner of the ClientApp after the server's welcome, and again when the
                server starts another run.
            version: of shoal; name: of this client, if it has no certificate.
            on_message: called with the entry of each task before it is run, and of each reply before it is
                sent.
            refuses: message type → why it is refused, or "".
            compression: of replies.
            most_bytes: maximum size of a message from the server.
            patience_s: how long to keep trying an unreachable server.
        """
        self._address = address
        self._credentials = credentials
        self._make_worker = make_worker
        self._hello = wire.Hello(protocol=PROTOCOL, version=version, name=name)
        self._on_message = on_message
        self._refuses = refuses
        self._compression = compression
        self._most_bytes = most_bytes
        self._patience_s = patience_s
        self._worker: Runs | None = None
        self._client = -1
        self._run_id = ""
        self._state: RecordDict | None = None
        self._answers: dict[str, _Answer] = {}
        self._welcomed = False

    def run(self) -> None:
        """Take part until the server ends it.

        Raises:
            TransportError: the server refuses this client, or is unreachable for too long.
        """
        wait, since = _FIRST_WAIT_S, time.monotonic()
        while True:
            self._welcomed = False
            try:
                if self._session():
                    return
                reason = "the server ended the connection"
            except grpc.RpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                if error.code() in _HOPELESS:
                    raise TransportError(f"{self._address}: {reason}") from error
            if self._welcomed:
                wait, since = _FIRST_WAIT_S, time.monotonic()
            if time.monotonic() - since > self._patience_s:
                raise TransportError(
                    f"no connection to {self._address} for {self._patience_s:g} s; last error: {reason}",
                    hint="check that the server is running and that both certificates are from the same "
                    "authority",
                )
            _log.info("%s; reconnecting in %.1f s", reason, wait)
            time.sleep(wait * random.uniform(0.5, 1.0))  # so that clients do not all reconnect at once
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def _session(self) -> bool:
        """Keep one connection as long as it lasts; return whether the server ended the run."""
        channel: Any
        if self._credentials is None:
            channel = grpc.insecure_channel(self._address, LIMITS)
        else:
            channel = grpc.secure_channel(self._address, self._credentials, LIMITS)
        with channel:
            join = channel.stream_stream(
                f"/{SERVICE}/Join",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=wire.FromServer.FromString,
            )
            outgoing: queue.SimpleQueue[Iterator[wire.FromClient] | None] = queue.SimpleQueue()
            outgoing.put(iter([wire.FromClient(hello=self._hello)]))
            stream = join(_each(outgoing))
            try:
                return self._follow(stream, outgoing)
            finally:
                outgoing.put(None)
                stream.cancel()

    def _follow(
        self,
        stream: Iterator[wire.FromServer],
        outgoing: queue.SimpleQueue[Iterator[wire.FromClient] | None],
    ) -> bool:
        for message in stream:
            match message.WhichOneof("body"):
                case "welcome":
                    try:
                        self._begin(message.welcome)
                    except ShoalError as error:
                        outgoing.put(iter([_decline(error)]))
                        _until_closed(stream)
                        raise
                case "refusal":
                    raise TransportError(
                        f"{self._address} refused this client: {printable(message.refusal.reason)}"
                    )
                case "task":
                    content = self._receive(message.task.payload, stream)
                    outgoing.put(self._answer(message.task, content))
                case "received":
                    self._answers.pop(message.received.task, None)
                case "goodbye":
                    return True
                case _:
                    raise TransportError(f"{self._address} sent an unexpected message")
        return False

    def _begin(self, welcome: wire.Welcome) -> None:
        self._welcomed = True
        _log.info("connected to %s", self._address)
        if self._worker is None or welcome.run_id != self._run_id:  # nothing is kept from another run
            self._worker, self._client = self._make_worker(welcome), welcome.client
            self._run_id, self._state, self._answers = welcome.run_id, None, {}

    def _receive(self, header: wire.Payload, stream: Iterator[wire.FromServer]) -> RecordDict:
        unpacking = Unpacking(header, self._most_bytes)
        while not unpacking.complete:
            part = next(stream, None)
            if part is None or part.WhichOneof("body") != "chunk":
                raise TransportError(f"{self._address} sent a task with incomplete content")
            unpacking.add(part.chunk)
        return unpacking.content()

    def _answer(self, task: wire.Task, content: RecordDict) -> Iterator[wire.FromClient]:
        """Answer a task; a repeated task gets the same answer again."""
        self._on_message(self._entry("received", task, content, task.payload))
        if task.id not in self._answers:
            begun = time.monotonic()
            self._answers[task.id] = self._work(task, content)
            number = round_of(content)
            when = "" if number is None else f"round {number}: "
            _log.info("%s%s took %.1f s", when, task.message_type, time.monotonic() - begun)
        answer = self._answers[task.id]
        header = None if answer.packed is None else answer.packed.header
        self._on_message(self._entry("sent", task, content, header, answer.error))
        return _messages(task.id, answer, header)

    def _entry(
        self,
        direction: Direction,
        task: wire.Task,
        asked: RecordDict,
        header: wire.Payload | None,
        error: str = "",
    ) -> MessageEntry:
        round_number = round_of(asked)
        if header is None:
            return MessageEntry.failed(direction, self._address, task.message_type, round_number, error)
        digest = header.sha256.hex()
        return MessageEntry(direction, self._address, task.message_type, round_number, header.size, digest)

    def _work(self, task: wire.Task, content: RecordDict) -> _Answer:
        if self._worker is None:
            raise TransportError(f"{self._address} sent a task before its welcome")
        if reason := self._refuses(task.message_type):
            _log.warning("refused %s from the server: %s", task.message_type, reason)
            return _Answer(reason, None)
        node = FIRST_NODE_ID + self._client
        job = Job(node, self._client, task.message_type, task.group, self._state)
        answer = self._worker.run(content, [job])[0]
        if answer.state is not None:
            self._state = answer.state
        if answer.content is None:
            return _Answer(answer.error[:MOST_ERROR] or "no reason given", None)
        return _Answer("", pack(answer.content, self._compression))


def _decline(error: ShoalError) -> wire.FromClient:
    """Return the message that this client takes no part; the text of the error stays here."""
    reason = f"{type(error).__name__} at this site; its operator knows more"
    return wire.FromClient(decline=wire.Decline(reason=reason))


def _until_closed(stream: Iterator[wire.FromServer]) -> None:
    """Wait until the server, which has read what was sent, ends the session."""
    with suppress(grpc.RpcError):
        for _ in stream:
            pass


def _each(outgoing: queue.SimpleQueue[Iterator[wire.FromClient] | None]) -> Iterator[wire.FromClient]:
    while (messages := outgoing.get()) is not None:
        yield from messages


def _messages(task: str, answer: _Answer, header: wire.Payload | None) -> Iterator[wire.FromClient]:
    yield wire.FromClient(reply=wire.Reply(task=task, error=answer.error, payload=header))
    if answer.packed is not None:
        for chunk in answer.packed.chunks():
            yield wire.FromClient(chunk=chunk)
