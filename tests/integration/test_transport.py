"""Clients over real sockets and TLS: who comes in, what is taken, and that nothing is done twice."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from common.errors import TransportError
from common.records import record_to_weights, weights_to_record
from simulations.engine.worker import Answer, Job
from simulations.transport import wire_pb2 as wire
from simulations.transport.certificates import (
    client_credentials,
    issue,
    make_authority,
    serial_number,
    server_credentials,
)
from simulations.transport.client import Left, TransportClient
from simulations.transport.codec import pack
from simulations.transport.server import PROTOCOL, SERVICE, Asked, Policy, TransportServer

NAMES = ("north", "south", "west")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder)
    issue(folder, "server", hosts=["127.0.0.1"])
    for name in (*NAMES, "stranger"):
        issue(folder, name)
    other = folder / "other"
    make_authority(other, "somebody else")
    issue(other, "north")
    return folder


@pytest.fixture
def server(keys: Path) -> Iterator[TransportServer]:
    yield from listening(keys, Policy(NAMES, patience_s=20))


def listening(keys: Path, policy: Policy) -> Iterator[TransportServer]:
    credentials = server_credentials(keys / "ca.crt", keys / "server.crt", keys / "server.key")
    found = TransportServer("127.0.0.1:0", credentials, policy, "1.0")
    yield found
    found.close()


class Doubles:
    """Answers with twice the weights it gets, and counts how often it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked = 0
        self.seconds = seconds

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        self.asked += 1
        time.sleep(self.seconds)
        weights = [2 * w for w in record_to_weights(content.array_records["arrays"])]
        told = RecordDict({"arrays": weights_to_record(weights), "metrics": MetricRecord({"n": 1})})
        return [Answer(told, "", RecordDict(), [jobs[0].node_id])]


class Running(threading.Thread):
    """A client in a thread."""

    def __init__(self, server: TransportServer, keys: Path, name: str, worker: Doubles, **options: object):
        super().__init__(daemon=True)
        self.left: list[Left] = []
        self.error: BaseException | None = None
        credentials = client_credentials(keys / "ca.crt", keys / f"{name}.crt", keys / f"{name}.key")
        self.client = TransportClient(
            f"127.0.0.1:{server.port}",
            credentials,
            lambda welcome: worker,
            version="1.0",
            on_left=self.left.append,
            **options,  # type: ignore[arg-type]
        )
        self.start()

    def run(self) -> None:
        try:
            self.client.run()
        except TransportError as error:
            self.error = error


def asked(client: int, weights: Sequence[np.ndarray] = (np.arange(4, dtype=np.float32),)) -> Asked:
    content = RecordDict({"arrays": weights_to_record(weights), "config": ConfigRecord({"round": 1})})
    return Asked(client, "train", "1", pack(content))


def test_tasks_reach_their_clients_and_replies_come_back(server: TransportServer, keys: Path) -> None:
    workers = [Doubles() for _ in NAMES]
    clients = [Running(server, keys, n, w) for n, w in zip(NAMES, workers, strict=True)]
    assert server.wait_for(3, 20) == [0, 1, 2]
    sent = [asked(k, [np.full(300_000, k, np.float32)]) for k in (2, 0, 1)]  # more than a chunk
    for k, answer in zip((2, 0, 1), server.exchange(sent, 20), strict=True):
        assert answer is not None
        assert answer.content is not None
        weights = record_to_weights(answer.content.array_records["arrays"])
        assert np.array_equal(weights[0], np.full(300_000, 2 * k, np.float32))
    server.close()
    for client in clients:
        client.join(10)
        assert client.error is None
        assert not client.is_alive()  # the server said goodbye
        (left,) = client.left
        assert left.bytes > 1_200_000
        assert len(left.sha256) == 64


def test_a_client_may_come_late(server: TransportServer, keys: Path) -> None:
    late = threading.Timer(1.0, lambda: Running(server, keys, "south", Doubles()))
    late.start()
    (answer,) = server.exchange([asked(1)], 20)
    assert answer is not None
    assert answer.content is not None


def test_a_client_that_never_comes_fails_and_a_slow_one_is_late(keys: Path) -> None:
    for server in listening(keys, Policy(NAMES, patience_s=1)):
        Running(server, keys, "south", Doubles(seconds=3))
        server.wait_for(1, 20)
        gone, slow = server.exchange([asked(0), asked(1)], 2)
        assert gone is not None
        assert "not connected for 1 s" in gone.error
        assert slow is None


class Relay:
    """Passes bytes on between a client and the server, until it cuts the line."""

    def __init__(self, port: int) -> None:
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._to = port
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            two = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [one, two]
            for source, sink in ((one, two), (two, one)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass(source: object, sink: object) -> None:
        try:
            while data := source.recv(1 << 16):  # type: ignore[attr-defined]
                sink.sendall(data)  # type: ignore[attr-defined]
        except OSError:
            return

    def cut(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()


def test_a_task_is_done_once_though_the_connection_breaks_over_it(
    server: TransportServer, keys: Path
) -> None:
    relay, worker = Relay(server.port), Doubles(seconds=2)
    through = TransportServerAt(relay.port)
    client = Running(through, keys, "north", worker)  # type: ignore[arg-type]
    assert server.wait_for(1, 20) == [0]
    threading.Timer(0.7, relay.cut).start()  # while it works
    (answer,) = server.exchange([asked(0)], 30)
    assert answer is not None
    assert answer.content is not None
    assert relay.connections >= 2
    assert worker.asked == 1  # it came back and gave the answer that it had
    server.close()
    client.join(10)
    assert client.error is None
    relay.close()


class TransportServerAt:
    """Where a client dials."""

    def __init__(self, port: int) -> None:
        self.port = port


# -- who is refused -----------------------------------------------------------------------------


def dial(server: TransportServer, credentials: grpc.ChannelCredentials | None, name: str = "") -> str:
    """Dial as `run` does; return why it ended."""
    client = TransportClient(
        f"127.0.0.1:{server.port}",
        credentials,
        lambda welcome: Doubles(),
        version="1.0",
        name=name,
        patience_s=0.0,
    )
    with pytest.raises(TransportError) as caught:
        client.run()
    return str(caught.value)


def expired(keys: Path) -> grpc.ChannelCredentials:
    issue(keys, "west", days=-1)
    return of(keys, "west")


def of(keys: Path, name: str) -> grpc.ChannelCredentials:
    return client_credentials(keys / "ca.crt", keys / f"{name}.crt", keys / f"{name}.key")


def without(keys: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials((keys / "ca.crt").read_bytes())


def of_another_authority(keys: Path) -> grpc.ChannelCredentials:
    other = keys / "other"
    return client_credentials(keys / "ca.crt", other / "north.crt", other / "north.key")


def in_plain(keys: Path) -> None:
    return None


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        (lambda keys: of(keys, "stranger"), '"stranger" is not on the list of clients'),
        (without, "no connection"),
        (of_another_authority, "no connection"),
        (expired, "no connection"),
        (in_plain, "no connection"),
    ],
)
def test_who_has_no_good_certificate_is_refused_and_others_are_served(
    server: TransportServer,
    keys: Path,
    credentials: Callable[[Path], grpc.ChannelCredentials | None],
    reason: str,
) -> None:
    assert reason in dial(server, credentials(keys), "north")
    assert server.connected() == []
    Running(server, keys, "north", Doubles())
    (answer,) = server.exchange([asked(0)], 20)
    assert answer is not None
    assert answer.content is not None


def test_a_revoked_certificate_is_refused(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    revoked = serial_number(keys / "south.crt")
    with caplog.at_level(logging.WARNING, "shoal.transport"):
        for server in listening(keys, Policy(NAMES, revoked=[revoked])):
            assert 'the certificate of "south" is revoked' in dial(server, of(keys, "south"))
    assert 'refused "south" at ipv4:127.0.0.1' in caplog.text


def test_a_server_without_credentials_is_refused() -> None:
    with pytest.raises(TransportError, match="declared insecure"):
        TransportServer("127.0.0.1:0", None, Policy(NAMES), "1.0")


def test_a_port_that_is_taken_is_told(server: TransportServer, keys: Path) -> None:
    with pytest.raises(TransportError, match="cannot listen on"):
        next(listening_at(f"127.0.0.1:{server.port}", keys))


def listening_at(address: str, keys: Path) -> Iterator[TransportServer]:
    credentials = server_credentials(keys / "ca.crt", keys / "server.crt", keys / "server.key")
    yield TransportServer(address, credentials, Policy(NAMES), "1.0")


# -- what is refused of one who has come in -----------------------------------------------------


def raw(server: TransportServer, keys: Path, name: str, messages: Iterator[bytes]) -> list[wire.FromServer]:
    """Send bytes as a client that keeps no rules; return what the server says until it hangs up."""
    with grpc.secure_channel(f"127.0.0.1:{server.port}", of(keys, name)) as channel:
        join = channel.stream_stream(
            f"/{SERVICE}/Join", request_serializer=bytes, response_deserializer=wire.FromServer.FromString
        )
        return list(join(messages, timeout=20))


def hello(protocol: int = PROTOCOL) -> bytes:
    return wire.FromClient(hello=wire.Hello(protocol=protocol, version="9.9")).SerializeToString()


@pytest.mark.parametrize(("protocol", "side"), [(PROTOCOL - 1, "client"), (PROTOCOL + 1, "server")])
def test_another_protocol_is_refused_with_who_has_to_update(
    server: TransportServer, keys: Path, protocol: int, side: str
) -> None:
    (said,) = raw(server, keys, "north", iter([hello(protocol)]))
    assert said.refusal.reason.endswith(f"update the {side}")


def too_large() -> bytes:
    payload = wire.Payload(size=1 << 50)
    return wire.FromClient(reply=wire.Reply(task="x", payload=payload)).SerializeToString()


def truncated() -> list[bytes]:
    payload = wire.Payload(size=1_000)
    begun = wire.FromClient(reply=wire.Reply(task="x", payload=payload)).SerializeToString()
    return [begun, wire.FromClient(chunk=b"short").SerializeToString(), hello()]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([b"\xff\xff no protobuf"], "something that is no reply"),
        ([wire.FromClient(chunk=b"lost").SerializeToString()], "something that is no reply"),
        ([hello()], "something that is no reply"),
        ([too_large()], "at most 1,073,741,824 are taken"),
        (truncated(), "something else amid a reply"),
    ],
)
def test_a_client_that_keeps_no_rules_is_put_out_and_others_are_served(
    server: TransportServer, keys: Path, messages: list[bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "shoal.transport"):
        said = raw(server, keys, "north", iter([hello(), *messages]))
    assert [message.WhichOneof("body") for message in said] == ["welcome"]
    assert reason in caplog.text
    Running(server, keys, "south", Doubles())
    (answer,) = server.exchange([asked(1)], 20)
    assert answer is not None
    assert answer.content is not None


def test_a_reply_to_somebody_else_s_task_or_told_twice_changes_nothing(
    server: TransportServer, keys: Path
) -> None:
    told: list[str] = []
    wrong = pack(RecordDict({"arrays": weights_to_record([np.full(4, 666, np.float32)])}))
    south_asked = threading.Event()

    class Late(Doubles):
        def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
            south_asked.set()
            time.sleep(2)  # the other one answers first
            return super().run(content, jobs)

    def reply(task: str) -> Iterator[bytes]:
        answer = wire.Reply(task=task, payload=wrong.header)
        yield wire.FromClient(reply=answer).SerializeToString()
        for chunk in wrong.chunks():
            yield wire.FromClient(chunk=chunk).SerializeToString()

    def north() -> Iterator[bytes]:
        yield hello()
        south_asked.wait(20)
        (task,) = server._tasks  # a task id is a secret of 122 bits: here it is given away
        told.append(task)
        yield from reply(task)
        yield from reply(task)
        time.sleep(3)

    threading.Thread(target=lambda: raw(server, keys, "north", north()), daemon=True).start()
    Running(server, keys, "south", Late())
    server.wait_for(2, 20)
    (answer,) = server.exchange([asked(1)], 20)
    assert told
    assert answer is not None
    assert answer.content is not None
    weights = record_to_weights(answer.content.array_records["arrays"])
    np.testing.assert_array_equal(weights[0], [0, 2, 4, 6])  # twice 0 … 3: south's, not north's


def test_a_client_that_says_nothing_is_hung_up_on(
    server: TransportServer, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.transport.server._HELLO_S", 1.0)
    waiting = threading.Event()

    def silence() -> Iterator[bytes]:
        waiting.wait(10)
        yield from ()

    started = time.monotonic()
    assert raw(server, keys, "north", silence()) == []
    assert time.monotonic() - started < 8
    waiting.set()
