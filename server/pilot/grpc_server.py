"""The server side of the transport: a gRPC service that clients connect to, and the tasks waiting for them.

An event loop in one thread serves all clients, so a thousand idle clients need no threads. A client may
connect late, disconnect and reconnect: its tasks wait for it. Each task is answered once; repeated answers
are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import uuid4

import grpc
import grpc.aio
from flwr.app import RecordDict
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from shoal.common.audit.log import Direction, MessageEntry
from shoal.common.certificates import Identity, Revocations, identity
from shoal.common.errors import TransportError
from shoal.common.printable import printable
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import Packed, Unpacking
from shoal.common.wire.protocol import LIMITS, MOST_ERROR, PROTOCOL, SERVICE
from shoal.server.pilot.meter import Meter

T = TypeVar("T")

_HELLO_S: Final = 10.0  # time for a client's hello message
_STALLED_S: Final = 60.0  # after which the rate of an incoming reply is checked
_LEAST_RATE: Final = 16_384  # minimum rate of a reply, in bytes per second
_REVOKED_S: Final = 2.0  # between checks of the revocation list
_GOODBYE_S: Final = 5.0
_log = logging.getLogger("shoal.transport")


@dataclass(frozen=True, slots=True)
class ClientTask:
    """One task for one client.

    Attributes:
        client: its index; message_type, group: as in the Flower message; packed: the content.
        round: its round, for the log.
    """

    client: int
    message_type: str
    group: str
    packed: Packed
    round: int | None = None


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """A client's answer: `content`, or the `error` that prevented it."""

    content: RecordDict | None
    error: str


@dataclass(slots=True, eq=False)
class _Session:
    """One stream of one client, from an address; `outgoing` holds iterators over messages to be sent."""

    client: int
    serial: int
    peer: str = ""
    outgoing: asyncio.Queue[Iterator[bytes] | None] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class _Task:
    id: str
    asked: ClientTask
    answer: asyncio.Future[ClientAnswer]
    since: float


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may take part, and the limits.

    Attributes:
        names: of the clients, by index: the common names of their certificates.
        revocations: the revoked certificates; `None` means none.
        patience_s: how long tasks wait for a disconnected client.
        most_bytes: maximum size of a client's message.
        insecure: whether clients without a certificate are accepted by the name they give.
    """

    names: Sequence[str]
    revocations: Revocations | None = None
    patience_s: float = 60.0
    most_bytes: int = 1 << 30
    insecure: bool = False

    def revokes(self, serial: int) -> bool:
        """Whether the certificate with this serial number is revoked."""
        return self.revocations is not None and serial in self.revocations.serials()


class TransportServer:
    """Accepts the clients of a federation and sends them their tasks."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ServerCredentials | None,
        policy: Policy,
        version: str,
        agreement: str = "",
        run_id: str = "",
    ) -> None:
        """Start listening.

        Args:
            address: "host:port"; port 0 selects a free one.
            credentials: of the server; `None` only with `policy.insecure`.
            policy: who may take part; version: of shoal, sent to clients.
            agreement: hash of what clients and server must have in common; clients check it.
            run_id: identifies the run in the clients' logs.

        A logger sets `on_message`, which is called on the event loop with the entry of each task before it is
        sent, and of each reply before it is accepted.

        Raises:
            TransportError: the address cannot be used.
        """
        self.on_message: Callable[[MessageEntry], None] = lambda entry: None
        if credentials is None and not policy.insecure:
            raise TransportError("a server without credentials needs policy.insecure = True")
        self._policy = policy
        self._version = version
        self._agreement = agreement
        self._run_id = run_id
        self._indices = {name: index for index, name in enumerate(policy.names)}
        self._sessions: dict[int, _Session] = {}
        self._declined: dict[int, str] = {}  # client → why it takes no part
        self._tasks: dict[str, _Task] = {}
        self.meter = Meter(policy.names, lambda: len(self._sessions), lambda: len(self._tasks))
        self._changed: asyncio.Condition | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="transport", daemon=True)
        self._thread.start()
        try:
            self.port = self._call(self._start(address, credentials))
        except BaseException:
            self._end_loop()
            raise

    def connected(self) -> list[int]:
        """Return the indices of the connected clients."""
        return sorted(self._sessions)

    def wait_for(self, clients: int, timeout_s: float) -> list[int]:
        """Wait for this number of clients or the timeout; return the indices of the connected clients.

        A client that declined to take part is not waited for.
        """
        self._call(self._wait_for(clients, timeout_s))
        return self.connected()

    def exchange(self, asked: Sequence[ClientTask], timeout_s: float | None) -> list[ClientAnswer | None]:
        """Send tasks to clients and return their answers in order; `None` for a late one."""
        return self._call(self._exchange(asked, timeout_s))

    def close(self) -> None:
        """Say goodbye to the clients and stop listening."""
        if self._thread.is_alive():
            self._call(self._stop())
            self._end_loop()

    # -- on the event loop ----------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        self._changed = asyncio.Condition()
        self._server = grpc.aio.server(options=LIMITS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._join, request_deserializer=_read, response_serializer=lambda raw: raw
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, {"Join": handler})]
        )
        health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        await health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        try:
            if credentials is None:
                port: int = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise TransportError(
                f"cannot listen on {address}", hint="check that the port is free and the host is this machine"
            )
        await self._server.start()
        self._revoking = asyncio.create_task(self._disconnect_revoked())
        return port

    async def _disconnect_revoked(self) -> None:
        """End sessions whose certificate is revoked while they are open."""
        while self._policy.revocations is not None:
            await asyncio.sleep(_REVOKED_S)
            for session in list(self._sessions.values()):
                if self._policy.revokes(session.serial):
                    name = self._policy.names[session.client]
                    self._note_refusal(name, "its certificate is revoked")
                    reason = f'the certificate of "{name}" is revoked'
                    session.outgoing.put_nowait(iter([_raw(refusal=wire.Refusal(reason=reason))]))
                    session.outgoing.put_nowait(None)

    def _note_refusal(self, who: object, reason: str) -> None:
        self.meter.refused += 1
        _log.warning("%s: %s", who, reason)

    async def _stop(self) -> None:
        self._revoking.cancel()
        for session in self._sessions.values():
            session.outgoing.put_nowait(iter([_raw(goodbye=wire.Goodbye())]))
            session.outgoing.put_nowait(None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until(lambda: not self._sessions), _GOODBYE_S)
        await self._server.stop(None)

    async def _wait_for(self, clients: int, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until(lambda: self._heard() >= clients), timeout_s)

    def _heard(self) -> int:
        return len(self._sessions.keys() | self._declined.keys())

    async def _until(self, holds: Callable[[], bool]) -> None:
        assert self._changed is not None
        async with self._changed:
            await self._changed.wait_for(holds)

    async def _note_change(self) -> None:
        assert self._changed is not None
        async with self._changed:
            self._changed.notify_all()

    async def _exchange(
        self, asked: Sequence[ClientTask], timeout_s: float | None
    ) -> list[ClientAnswer | None]:
        now = self._loop.time()
        tasks = [_Task(uuid4().hex, one, self._loop.create_future(), now) for one in asked]
        self._tasks |= {task.id: task for task in tasks}
        for task in tasks:
            session = self._sessions.get(task.asked.client)
            if task.asked.client in self._declined:
                task.answer.set_result(ClientAnswer(None, self._declined[task.asked.client]))
            elif session is None:
                self._expect_back(task.asked.client)
            else:
                self._hand_out(session, task)
        await asyncio.wait([task.answer for task in tasks], timeout=timeout_s)
        for task in tasks:
            self._tasks.pop(task.id, None)
        return [task.answer.result() if task.answer.done() else None for task in tasks]

    def _hand_out(self, session: _Session, task: _Task) -> None:
        header = task.asked.packed.header
        if not self._noted("sent", task, header):
            return
        load = self.meter.clients[session.client]
        load.tasks += 1
        load.bytes_down += header.size
        session.outgoing.put_nowait(_task_messages(task))

    def _noted(self, direction: Direction, task: _Task, header: wire.Payload, error: str = "") -> bool:
        """Call the logger; if it fails, the task fails with that reason. Return whether it succeeded."""
        name, kind = self._policy.names[task.asked.client], task.asked.message_type
        entry = MessageEntry(direction, name, kind, task.asked.round, header.size, header.sha256.hex())
        if error:
            entry = MessageEntry.failed(direction, name, kind, task.asked.round, error)
        try:
            self.on_message(entry)
        except OSError as failure:
            task.answer.set_exception(failure)
            return False
        return True

    def _expect_back(self, client: int) -> None:
        """Fail a client's tasks unless it reconnects in time."""

        def give_up() -> None:
            if client in self._sessions:
                return
            reason = f"TransportError: not connected for {self._policy.patience_s:g} s"
            for task in self._tasks.values():
                if task.asked.client == client and not task.answer.done():
                    task.answer.set_result(ClientAnswer(None, reason))

        self._loop.call_later(self._policy.patience_s, give_up)

    async def _join(
        self, requests: AsyncIterator[wire.FromClient | None], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        who = identity(context.auth_context(), context.peer())
        try:
            hello = await asyncio.wait_for(anext(requests, None), _HELLO_S)
            client = self._admit(hello, who)
        except TransportError as error:
            self._note_refusal(f"refused {who}", error.message)
            await context.write(_raw(refusal=wire.Refusal(reason=error.message)))
            return
        except TimeoutError:
            self._note_refusal(f"refused {who}", f"no hello message within {_HELLO_S:g} s")
            return
        await self._serve(_Session(client, who.serial, context.peer()), requests, context)

    def _admit(self, first: wire.FromClient | None, who: Identity) -> int:
        """Return the index of the client if it is admitted.

        Raises:
            TransportError: it is not, with the reason.
        """
        if first is None or first.WhichOneof("body") != "hello":
            raise TransportError("the first message is not a hello")
        if first.hello.protocol != PROTOCOL:
            older = "client" if first.hello.protocol < PROTOCOL else "server"
            raise TransportError(
                f"the client uses protocol {first.hello.protocol} (shoal {first.hello.version[:40]}), the "
                f"server {PROTOCOL} (shoal {self._version}): update the {older}"
            )
        if not (who.name or self._policy.insecure):
            raise TransportError("no certificate, or one without a name")
        if self._policy.revokes(who.serial):
            raise TransportError(f'the certificate of "{who.name}" is revoked')
        name = who.name or first.hello.name
        if name not in self._indices:
            raise TransportError(f'"{name[:64]}" is not on the list of clients')
        return self._indices[name]

    async def _serve(
        self,
        session: _Session,
        requests: AsyncIterator[wire.FromClient | None],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Send a client its tasks and receive its replies until either side disconnects."""
        name = self._policy.names[session.client]
        before = self._sessions.get(session.client)
        if before is not None:  # its connection broke silently: the newest session replaces it
            before.outgoing.put_nowait(None)
            if _machine(before.peer) != _machine(session.peer):
                _log.warning(
                    "%s connected from %s while its session from %s was open: if these are two machines, its "
                    "key is in two places; revoke it (shoal certs --revoke)",
                    name, session.peer, before.peer,
                )  # fmt: skip
        self._sessions[session.client] = session
        self._declined.pop(session.client, None)  # it may take part after all
        self.meter.clients[session.client].connections += 1
        _log.info("%s connected", name)
        count = len(self._policy.names)
        welcome = wire.Welcome(
            version=self._version,
            client=session.client,
            clients=count,
            agreement=self._agreement,
            run_id=self._run_id,
        )
        session.outgoing.put_nowait(iter([_raw(welcome=welcome)]))
        for task in self._tasks.values():
            if task.asked.client == session.client and not task.answer.done():
                self._hand_out(session, task)
        await self._note_change()
        work = [
            asyncio.create_task(self._watch(name, self._send(session, context))),
            asyncio.create_task(self._watch(name, self._receive(session, requests))),
        ]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # No await here: gRPC may have cancelled this coroutine, and would cancel it again.
            for one in work:
                one.cancel()
            _log.info("%s disconnected", name)
            if self._sessions.get(session.client) is session:
                del self._sessions[session.client]
                self._expect_back(session.client)
            self._ending = asyncio.create_task(self._note_change())

    async def _watch(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run one half of a session; a protocol error of the client ends the session and is logged."""
        try:
            await work
        except TransportError as error:
            self._note_refusal(name, error.message)
        except TimeoutError:
            self._note_refusal(
                name, f"a reply stalled, or arrived at less than {_LEAST_RATE} bytes per second"
            )
        except grpc.RpcError:
            return  # it disconnected

    async def _send(self, session: _Session, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while (messages := await session.outgoing.get()) is not None:
            for raw in messages:
                await context.write(raw)

    async def _receive(self, session: _Session, requests: AsyncIterator[wire.FromClient | None]) -> None:
        async for message in requests:
            body = None if message is None else message.WhichOneof("body")
            if message is not None and body == "decline":
                return self._decline(session, printable(message.decline.reason[:MOST_ERROR]))
            if message is None or body != "reply":
                raise TransportError("it sent a message that is not a reply")
            await self._take(session, message.reply, requests)

    def _decline(self, session: _Session, reason: str) -> None:
        """Fail the tasks of a client that takes no part; its session ends."""
        _log.warning("%s takes no part: %s", self._policy.names[session.client], reason)
        self._declined[session.client] = f"it takes no part: {reason}"
        for task in self._tasks.values():
            if task.asked.client == session.client and not task.answer.done():
                task.answer.set_result(ClientAnswer(None, self._declined[session.client]))

    async def _take(
        self, session: _Session, reply: wire.Reply, requests: AsyncIterator[wire.FromClient | None]
    ) -> None:
        """Accept one reply if it is still expected from this client; nothing of other replies is kept."""
        task = self._tasks.get(reply.task)
        wanted = task is not None and task.asked.client == session.client and not task.answer.done()
        unpacking = Unpacking(reply.payload, self._policy.most_bytes, keep=wanted)
        if not reply.error:
            async with asyncio.timeout(_STALLED_S + reply.payload.size / _LEAST_RATE):
                while not unpacking.complete:
                    part = await anext(requests, None)
                    if part is None or part.WhichOneof("body") != "chunk":
                        raise TransportError("it sent another message in the middle of a reply")
                    unpacking.add(part.chunk)
        if task is not None and wanted and not task.answer.done():
            content, error = None if reply.error else unpacking.content(), printable(reply.error[:MOST_ERROR])
            if self._noted("received", task, reply.payload, error):
                task.answer.set_result(ClientAnswer(content, error))
            self.meter.answered(session.client, reply.payload.size, self._loop.time() - task.since)
        session.outgoing.put_nowait(iter([_raw(received=wire.Received(task=reply.task))]))


def _read(raw: bytes) -> wire.FromClient | None:
    """Parse a client's message; `None` if it is not valid protobuf."""
    try:
        message: wire.FromClient = wire.FromClient.FromString(raw)
    except DecodeError:
        return None
    return message


def _raw(**body: Any) -> bytes:
    raw: bytes = wire.FromServer(**body).SerializeToString()
    return raw


def _task_messages(task: _Task) -> Iterator[bytes]:
    asked = task.asked
    yield _raw(
        task=wire.Task(
            id=task.id,
            message_type=asked.message_type,
            group=asked.group,
            payload=asked.packed.header,
        )
    )
    for chunk in asked.packed.chunks():
        yield _raw(chunk=chunk)


def _machine(peer: str) -> str:
    """Return a gRPC peer without its port, e.g. "ipv4:10.0.0.7"."""
    return peer.rpartition(":")[0]
