"""A server and clients of the gRPC transport, over real sockets and TLS, for its tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shoal.clients.pilot.grpc_client import TransportClient
from shoal.clients.worker import Answer, Job
from shoal.common.audit.log import MessageEntry
from shoal.common.certificates import client_credentials, server_credentials
from shoal.common.errors import TransportError
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import pack
from shoal.common.wire.protocol import PROTOCOL, SERVICE
from shoal.server.pilot.grpc_server import ClientTask, Policy, TransportServer

NAMES = ("north", "south", "west")


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
        self.entries: list[MessageEntry] = []
        self.error: BaseException | None = None
        credentials = client_credentials(keys / "ca.crt", keys / f"{name}.crt", keys / f"{name}.key")
        self.client = TransportClient(
            f"127.0.0.1:{server.port}",
            credentials,
            lambda welcome: worker,
            version="1.0",
            on_message=self.entries.append,
            **options,  # type: ignore[arg-type]
        )
        self.start()

    @property
    def left(self) -> list[MessageEntry]:
        return [one for one in self.entries if one.direction == "sent"]

    def run(self) -> None:
        try:
            self.client.run()
        except TransportError as error:
            self.error = error


def asked(client: int, weights: Sequence[np.ndarray] = (np.arange(4, dtype=np.float32),)) -> ClientTask:
    content = RecordDict({"arrays": weights_to_record(weights), "config": ConfigRecord({"round": 1})})
    return ClientTask(client, "train", "1", pack(content))


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


def of(keys: Path, name: str) -> grpc.ChannelCredentials:
    return client_credentials(keys / "ca.crt", keys / f"{name}.crt", keys / f"{name}.key")


def raw(server: TransportServer, keys: Path, name: str, messages: Iterator[bytes]) -> list[wire.FromServer]:
    """Send bytes as a client that keeps no rules; return what the server says until it hangs up."""
    with grpc.secure_channel(f"127.0.0.1:{server.port}", of(keys, name)) as channel:
        join = channel.stream_stream(
            f"/{SERVICE}/Join", request_serializer=bytes, response_deserializer=wire.FromServer.FromString
        )
        return list(join(messages, timeout=20))


def hello(protocol: int = PROTOCOL) -> bytes:
    return wire.FromClient(hello=wire.Hello(protocol=protocol, version="9.9")).SerializeToString()
