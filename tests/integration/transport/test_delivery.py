"""Tasks and replies over real sockets and TLS: they arrive, and nothing is done twice."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from waiting import until
from wire import NAMES, Doubles, Running, asked, listening, of

from shoal.clients.pilot.grpc_client import TransportClient
from shoal.clients.worker import Answer, Job
from shoal.common.audit.log import MessageEntry
from shoal.common.certificates import server_credentials
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.common.wire import wire_pb2 as wire
from shoal.server.pilot.grid import TransportGrid
from shoal.server.pilot.grpc_server import Policy, TransportServer


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
        self.to = port
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            two = socket.create_connection(("127.0.0.1", self.to))
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
    server: TransportServer, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shoal.transport")
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
    told = caplog.text
    assert told.count(f"connected to 127.0.0.1:{relay.port}") >= 2
    assert "train took" in told
    server.close()
    client.join(10)
    assert client.error is None
    relay.close()


def test_a_client_that_finds_another_run_begins_anew(keys: Path) -> None:
    files = (keys / "ca.crt", keys / "server.crt", keys / "server.key")
    first, second = (
        TransportServer("127.0.0.1:0", server_credentials(*files), Policy(NAMES), "1.0", run_id=name)
        for name in ("a", "b")
    )
    relay, welcomed = Relay(first.port), []

    def make_worker(welcome: wire.Welcome) -> Doubles:
        welcomed.append(welcome.run_id)
        return Doubles()

    client = TransportClient(f"127.0.0.1:{relay.port}", of(keys, "north"), make_worker, version="1.0")
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    assert first.wait_for(1, 20) == [0]
    relay.cut()
    until(lambda: relay.connections >= 2, 20)
    assert first.wait_for(1, 20) == [0]
    relay.to = second.port
    relay.cut()
    assert second.wait_for(1, 20) == [0]
    (answer,) = second.exchange([asked(0)], 20)
    assert answer is not None
    assert answer.content is not None
    assert welcomed == ["a", "b"]  # once for each run, not for each connection
    second.close()
    thread.join(10)
    assert not thread.is_alive()
    first.close()
    relay.close()


def test_both_ends_note_a_message_before_it_goes_and_what_comes_with_the_same_hash(
    server: TransportServer, keys: Path
) -> None:
    noted: list[MessageEntry] = []
    server.on_message = noted.append
    client = Running(server, keys, "north", Doubles())
    server.exchange([asked(0)], 20)
    server.close()
    client.join(10)
    assert [(one.direction, one.peer, one.kind) for one in noted] == [
        ("sent", "north", "train"),
        ("received", "north", "train"),
    ]
    assert [one.direction for one in client.entries] == ["received", "sent"]
    assert [(one.bytes, one.sha256) for one in noted] == [(one.bytes, one.sha256) for one in client.entries]
    assert all(len(one.sha256) == 64 for one in noted)


@pytest.mark.parametrize("full_at", ["sent", "received"])
def test_a_message_that_cannot_be_logged_ends_the_exchange(
    server: TransportServer, keys: Path, full_at: str
) -> None:
    def note(entry: MessageEntry) -> None:
        if entry.direction == full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    server.on_message = note
    client = Running(server, keys, "north", Doubles())
    assert server.wait_for(1, 20) == [0]
    with pytest.raises(OSError, match="No space left"):
        server.exchange([asked(0)], 20)
    # What is not logged does not leave.
    assert len(client.entries) == (0 if full_at == "sent" else 2)


class TransportServerAt:
    """Where a client dials."""

    def __init__(self, port: int) -> None:
        self.port = port


# -- who is refused -----------------------------------------------------------------------------


def test_a_site_speaks_for_itself_only(server: TransportServer, keys: Path) -> None:
    class ForTwo(Doubles):
        def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
            (answer,) = super().run(content, jobs)
            assert answer.content is not None
            answer.content["clients"] = ConfigRecord({"client": [0, 1], "num-examples": [5, 5]})
            return [answer]

    identify_process(1)
    Running(server, keys, "north", ForTwo())
    server.wait_for(1, 20)
    sites = Sites(len(NAMES), lambda client: NAMES[client])
    content = RecordDict({"arrays": weights_to_record([np.zeros(2, np.float32)]), "config": ConfigRecord()})
    (reply,) = TransportGrid(server, sites, make_run(1)).send_and_receive(
        [Message(content, sites.node(0), "train")], timeout=20
    )
    assert reply.has_error()
    assert reply.error.reason == "DisclosureError: a site may answer only for itself"
