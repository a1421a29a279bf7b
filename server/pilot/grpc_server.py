"""The server's end: a gRPC service that clients dial into, and the tasks that wait for them.

It has an event loop in a thread of its own, so a thousand idle clients cost no thread each. A client may come
late, leave and come back: its tasks wait for it. Each task is answered once; what comes again is dropped.
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
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import Packed, Unpacking
from shoal.common.wire.protocol import LIMITS, MOST_ERROR, PROTOCOL, SERVICE
from shoal.server.pilot.meter import Meter

T = TypeVar("T")

_HELLO_S: Final = 10.0  # for a client to say who it is
_STALLED_S: Final = 60.0  # for a reply to begin to come
_LEAST_RATE: Final = 16_384  # bytes a second at which it then has to come
_REVOKED_S: Final = 2.0  # between looks at the revocation list
_GOODBYE_S: Final = 5.0
_log = logging.getLogger("shoal.transport")


@dataclass(frozen=True, slots=True)
class Asked:
    """One task for one client.

    Attributes:
        client: its index; message_type, group: as in the Flower message; packed: the content.
        round: that it belongs to, for the log.
    """

    client: int
    message_type: str
    group: str
    packed: Packed
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A client's answer: `content`, or else the `error` that kept it from one."""

    content: RecordDict | None
    error: str


@dataclass(slots=True, eq=False)
class _Session:
    """One stream of one client; `outgoing` holds iterators over what is to be sent."""

    client: int
    serial: int
    outgoing: asyncio.Queue[Iterator[bytes] | None] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class _Task:
    id: str
    asked: Asked
    answer: asyncio.Future[Answered]
    since: float


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may take part, and within what limits.

    Attributes:
        names: of the clients, by index: the subjects of their certificates.
        revocations: the certificates that count no more; `None`: all count.
        patience_s: how long the tasks of a client that has left wait for it to come back.
        most_bytes: of a client's message.
        insecure: whether clients without a certificate are taken at their word.
    """

    names: Sequence[str]
    revocations: Revocations | None = None
    patience_s: float = 60.0
    most_bytes: int = 1 << 30
    insecure: bool = False

    def revokes(self, serial: int) -> bool:
        """Tell whether the certificate of that number counts no more."""
        return self.revocations is not None and serial in self.revocations.serials()


class TransportServer:
    """Listens for the clients of a federation, and brings them their tasks."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ServerCredentials | None,
        policy: Policy,
        version: str,
        agreement: str = "",
        run_id: str = "",
    ) -> None:
        """Start to listen.

        Args:
            address: "host:port"; port 0 takes a free one.
            credentials: of the server; `None` only with `policy.insecure`.
            policy: who may take part; version: of shoal, told to clients.
            agreement: hash of what clients must have in common with the server; they check it.
            run_id: names the run to the clients, for their logs.

        Whoever logs sets `on_passed`, which is told of each task before it goes and of each reply before it
        counts, on the event loop.

        Raises:
            TransportError: the address cannot be had.
        """
        self.on_passed: Callable[[MessageEntry], None] = lambda passed: None
        if credentials is None and not policy.insecure:
            raise TransportError("a server without credentials must be declared insecure")
        self._policy = policy
        self._version = version
        self._agreement = agreement
        self._run_id = run_id
        self._indices = {name: index for index, name in enumerate(policy.names)}
        self._sessions: dict[int, _Session] = {}
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
        """Return the indices of the clients that are there."""
        return sorted(self._sessions)

    def wait_for(self, clients: int, timeout_s: float) -> list[int]:
        """Wait until that many clients are there, or time is over; return which are."""
        self._call(self._wait_for(clients, timeout_s))
        return self.connected()

    def exchange(self, asked: Sequence[Asked], timeout_s: float | None) -> list[Answered | None]:
        """Bring tasks to clients and return their answers, in order; `None` for one that is late."""
        return self._call(self._exchange(asked, timeout_s))

    def close(self) -> None:
        """Say goodbye to the clients and stop to listen."""
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
                f"cannot listen on {address}", hint="is the port taken, or the host not this machine's?"
            )
        await self._server.start()
        self._revoking = asyncio.create_task(self._put_out_revoked())
        return port

    async def _put_out_revoked(self) -> None:
        """End sessions whose certificate is revoked while they last."""
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
            await asyncio.wait_for(self._until(lambda: len(self._sessions) >= clients), timeout_s)

    async def _until(self, holds: Callable[[], bool]) -> None:
        assert self._changed is not None
        async with self._changed:
            await self._changed.wait_for(holds)

    async def _note_change(self) -> None:
        assert self._changed is not None
        async with self._changed:
            self._changed.notify_all()

    async def _exchange(self, asked: Sequence[Asked], timeout_s: float | None) -> list[Answered | None]:
        now = self._loop.time()
        tasks = [_Task(uuid4().hex, one, self._loop.create_future(), now) for one in asked]
        self._tasks |= {task.id: task for task in tasks}
        for task in tasks:
            session = self._sessions.get(task.asked.client)
            if session is None:
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
        """Tell who logs; where it cannot, the task fails with the reason and whoever waits for it gets it."""
        name, kind = self._policy.names[task.asked.client], task.asked.message_type
        passed = MessageEntry(direction, name, kind, task.asked.round, header.size, header.sha256.hex())
        if error:
            passed = MessageEntry.failed(direction, name, kind, task.asked.round, error)
        try:
            self.on_passed(passed)
        except OSError as failure:
            task.answer.set_exception(failure)
            return False
        return True

    def _expect_back(self, client: int) -> None:
        """Fail a client's tasks unless it is there again in time."""

        def give_up() -> None:
            if client in self._sessions:
                return
            reason = f"TransportError: not connected for {self._policy.patience_s:g} s"
            for task in self._tasks.values():
                if task.asked.client == client and not task.answer.done():
                    task.answer.set_result(Answered(None, reason))

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
            self._note_refusal(f"refused {who}", "it said no hello")
            return
        await self._serve(_Session(client, who.serial), requests, context)

    def _admit(self, first: wire.FromClient | None, who: Identity) -> int:
        """Return the index of the client that may come in.

        Raises:
            TransportError: why it may not.
        """
        if first is None or first.WhichOneof("body") != "hello":
            raise TransportError("the first message is no hello")
        if first.hello.protocol != PROTOCOL:
            older = "client" if first.hello.protocol < PROTOCOL else "server"
            raise TransportError(
                f"the client speaks protocol {first.hello.protocol} (shoal {first.hello.version[:40]}), the "
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
        """Bring a client its tasks and take its replies until either side leaves."""
        name = self._policy.names[session.client]
        before = self._sessions.get(session.client)
        if before is not None:  # its connection broke without a word: the newest counts
            before.outgoing.put_nowait(None)
        self._sessions[session.client] = session
        self.meter.clients[session.client].connections += 1
        _log.info("%s is there", name)
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
            # Nothing is awaited here: gRPC may have cancelled us, and does so again.
            for one in work:
                one.cancel()
            _log.info("%s has left", name)
            if self._sessions.get(session.client) is session:
                del self._sessions[session.client]
                self._expect_back(session.client)
            self._ending = asyncio.create_task(self._note_change())

    async def _watch(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do one half of a session; what its client did wrong ends the session, and goes into the log."""
        try:
            await work
        except TransportError as error:
            self._note_refusal(name, error.message)
        except TimeoutError:
            self._note_refusal(name, f"a reply stalled, or came at less than {_LEAST_RATE} bytes a second")
        except grpc.RpcError:
            return  # it is gone

    async def _send(self, session: _Session, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while (messages := await session.outgoing.get()) is not None:
            for raw in messages:
                await context.write(raw)

    async def _receive(self, session: _Session, requests: AsyncIterator[wire.FromClient | None]) -> None:
        async for message in requests:
            if message is None or message.WhichOneof("body") != "reply":
                raise TransportError("it sent something that is no reply")
            await self._take(session, message.reply, requests)

    async def _take(
        self, session: _Session, reply: wire.Reply, requests: AsyncIterator[wire.FromClient | None]
    ) -> None:
        """Take one reply, if it is still asked for and this client's; of others, nothing is kept."""
        task = self._tasks.get(reply.task)
        wanted = task is not None and task.asked.client == session.client and not task.answer.done()
        unpacking = Unpacking(reply.payload, self._policy.most_bytes, keep=wanted)
        if not reply.error:
            async with asyncio.timeout(_STALLED_S + reply.payload.size / _LEAST_RATE):
                while not unpacking.complete:
                    part = await anext(requests, None)
                    if part is None or part.WhichOneof("body") != "chunk":
                        raise TransportError("it sent something else amid a reply")
                    unpacking.add(part.chunk)
        if task is not None and wanted and not task.answer.done():
            content, error = None if reply.error else unpacking.content(), reply.error[:MOST_ERROR]
            if self._noted("received", task, reply.payload, error):
                task.answer.set_result(Answered(content, error))
            self.meter.answered(session.client, reply.payload.size, self._loop.time() - task.since)
        session.outgoing.put_nowait(iter([_raw(received=wire.Received(task=reply.task))]))


def _read(raw: bytes) -> wire.FromClient | None:
    """Parse what a client sent; `None` if it is no protobuf."""
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
