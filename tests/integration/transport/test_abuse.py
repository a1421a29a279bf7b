"""Floods, slow replies and smuggled content: the server stays up, and honest clients finish."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from waiting import until
from wire import Doubles, Running, asked, hello, listening, raw

from shoal.common.weights import weights_to_record
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import pack
from shoal.server.pilot.grpc_server import Policy, TransportServer

# A process of its own, because both ends of a thousand sockets are more than one may have.
FLOOD = """
import resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
opened = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(1_000)]
for number, one in enumerate(opened):
    if number % 2:
        one.sendall(b"\\x16\\x03\\x01\\x02\\x00\\x01")  # the beginning of a TLS handshake, and no more
print("open", flush=True)
time.sleep(600)
"""


def reply(task: str, payload: wire.Payload) -> bytes:
    return wire.FromClient(reply=wire.Reply(task=task, payload=payload)).SerializeToString()


def chunk(data: bytes) -> bytes:
    return wire.FromClient(chunk=data).SerializeToString()


def assert_serves(server: TransportServer, keys: Path) -> None:
    Running(server, keys, "south", Doubles())
    (answer,) = server.exchange([asked(1)], 30)
    assert answer is not None
    assert answer.content is not None


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(server: TransportServer, keys: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FLOOD, str(server.port)], stdout=subprocess.PIPE) as flood:
        try:
            assert flood.stdout is not None
            assert flood.stdout.readline() == b"open\n"
            started = time.monotonic()
            assert_serves(server, keys)
            assert time.monotonic() - started < 10
            assert server.connected() == [1]
        finally:
            flood.kill()


def test_a_client_that_dials_a_hundred_times_has_one_session(server: TransportServer, keys: Path) -> None:
    """The newest connection counts; the others are hung up on."""
    stay = threading.Event()

    def once() -> None:
        def messages() -> Iterator[bytes]:
            yield hello()
            stay.wait(30)

        raw(server, keys, "north", messages())

    threads = [threading.Thread(target=once, daemon=True) for _ in range(100)]
    for thread in threads:
        thread.start()
    server.wait_for(1, 20)
    until(lambda: server.meter.clients[0].connections >= 100)
    assert server.meter.clients[0].connections == 100
    assert server.connected() == [0]
    assert_serves(server, keys)
    stay.set()


def test_a_reply_that_drips_is_cut_off(
    keys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte each tenth of a second is a chunk in time each time, but not the rate that is asked for."""
    monkeypatch.setattr("shoal.server.pilot.grpc_server._STALLED_S", 1.0)
    payload = wire.Payload(size=10_000)  # 0.6 s at 16 KiB a second

    def drip() -> Iterator[bytes]:
        yield hello()
        yield reply("x", payload)
        for _ in range(100):
            time.sleep(0.1)
            yield chunk(b".")

    with caplog.at_level(logging.WARNING, "shoal.transport"):
        for server in listening(keys, Policy(("north", "south"), patience_s=20)):
            started = time.monotonic()
            raw(server, keys, "north", drip())
            assert 1 < time.monotonic() - started < 6
            assert_serves(server, keys)
    assert "north: a reply stalled" in caplog.text


def test_a_reply_that_nobody_asked_for_is_not_kept(server: TransportServer, keys: Path) -> None:
    """It is read to its end, so that the stream stays in step, and takes no memory."""
    payload = wire.Payload(size=100 << 20)

    def unasked() -> Iterator[bytes]:
        yield hello()
        yield reply("x", payload)
        for _ in range(100):
            yield chunk(bytes(1 << 20))

    before = runtime()
    said = raw(server, keys, "north", unasked())
    assert [message.WhichOneof("body") for message in said] == ["welcome", "received"]
    assert runtime() - before < 50 << 20
    assert server.meter.clients[0].bytes_up == 0


def runtime() -> int:
    from shoal.common.memory import resident_bytes

    return resident_bytes()


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("import pathlib; pathlib.Path('smuggled').touch()",))


def test_paths_and_pickles_in_any_field_stay_text_and_bytes(
    server: TransportServer, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())
    path = "../../smuggled"
    content = RecordDict(
        {
            path: ConfigRecord({path: path, "bomb": bomb, "bombs": [bomb, bomb]}),
            "arrays": weights_to_record([np.frombuffer(bomb + bytes(-len(bomb) % 4), np.float32)]),
        }
    )
    packed = pack(content)

    def smuggle() -> Iterator[bytes]:
        yield hello()
        while not server._tasks:
            time.sleep(0.01)
        (task,) = server._tasks
        yield reply(task, packed.header)
        for data in packed.chunks():
            yield chunk(data)
        time.sleep(0.5)

    threading.Thread(target=lambda: raw(server, keys, "north", smuggle()), daemon=True).start()
    (answer,) = server.exchange([asked(0)], 20)
    assert answer is not None
    assert answer.content is not None
    assert answer.content[path]["bomb"] == bomb
    assert list(tmp_path.iterdir()) == []


def test_a_port_scan_is_survived(server: TransportServer, keys: Path) -> None:
    for greeting in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes(4096),
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as one:
            one.sendall(greeting)
    assert_serves(server, keys)
