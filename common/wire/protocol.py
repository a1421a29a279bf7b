"""Names and limits shared by both sides of the gRPC transport."""

from __future__ import annotations

from typing import Final

from shoal.common.wire.codec import CHUNK_BYTES

PROTOCOL: Final = 1


SERVICE: Final = "shoal.v1.Federation"


MOST_ERROR: Final = 2_000  # characters of an error that is sent instead of an answer


LIMITS: Final = [
    ("grpc.max_receive_message_length", 4 * CHUNK_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),  # two servers on one port would share the clients
]
