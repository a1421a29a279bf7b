"""Who comes in, and what is taken of one who has come in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import RecordDict
from wire import NAMES, Doubles, Running, asked, dial, hello, of, raw

from shoal.clients.worker import Answer, Job
from shoal.common.certificates import issue, server_credentials
from shoal.common.errors import TransportError
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import pack
from shoal.common.wire.protocol import PROTOCOL
from shoal.server.pilot.grpc_server import Policy, TransportServer


def unchecked(keys: Path, own: Path) -> grpc.ChannelCredentials:
    """Return credentials that an honest client would not dial with: it checks its own files before."""
    files = (keys / "ca.crt", own.with_suffix(".key"), own.with_suffix(".crt"))
    return grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))


def expired(keys: Path) -> grpc.ChannelCredentials:
    issue(keys, "west", days=-1)
    return unchecked(keys, keys / "west")


def without(keys: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials((keys / "ca.crt").read_bytes())


def of_another_authority(keys: Path) -> grpc.ChannelCredentials:
    return unchecked(keys, keys / "other" / "north")


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


def test_a_server_without_credentials_is_refused() -> None:
    with pytest.raises(TransportError, match=r"policy\.insecure = True"):
        TransportServer("127.0.0.1:0", None, Policy(NAMES), "1.0")


def test_a_port_that_is_taken_is_reported(server: TransportServer, keys: Path) -> None:
    with pytest.raises(TransportError, match="cannot listen on"):
        next(listening_at(f"127.0.0.1:{server.port}", keys))


def listening_at(address: str, keys: Path) -> Iterator[TransportServer]:
    credentials = server_credentials(keys / "ca.crt", keys / "server.crt", keys / "server.key")
    yield TransportServer(address, credentials, Policy(NAMES), "1.0")


# -- what is refused of one who has come in -----------------------------------------------------


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
        ([b"\xff\xff no protobuf"], "a message that is not a reply"),
        ([wire.FromClient(chunk=b"lost").SerializeToString()], "a message that is not a reply"),
        ([hello()], "a message that is not a reply"),
        ([too_large()], "at most 1,073,741,824 are accepted"),
        (truncated(), "another message in the middle of a reply"),
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
    monkeypatch.setattr("shoal.server.pilot.grpc_server._HELLO_S", 1.0)
    waiting = threading.Event()

    def silence() -> Iterator[bytes]:
        waiting.wait(10)
        yield from ()

    started = time.monotonic()
    assert raw(server, keys, "north", silence()) == []
    assert time.monotonic() - started < 8
    waiting.set()
