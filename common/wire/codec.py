"""Encodes Flower's records for the network and decodes them: without pickle, and without copying arrays.

A payload is a serialised `Content` (wire.proto), followed by the values of its arrays, little-endian in C
order, each aligned to 64 bytes, so that they can be used in place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from google.protobuf.message import DecodeError

from shoal.common.arrays import NumpyArray, view
from shoal.common.errors import TransportError
from shoal.common.wire import wire_pb2 as wire

CHUNK_BYTES: Final = 1 << 20
_ALIGNMENT: Final = 64
_ZSTD: Final = "zstd"
_DTYPES: Final = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)

Scalar = float | int | bool | str | bytes
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Packed:
    """A payload that is ready to be sent, any number of times.

    Attributes:
        content_bytes: size of the `Content` at its beginning; parts: its parts, in order.
        unpacked_size: size before compression in bytes; 0 without compression.
    """

    content_bytes: int
    parts: Sequence[Buffer]
    unpacked_size: int = 0

    @cached_property
    def header(self) -> wire.Payload:
        """The header that announces the payload."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part)
        size = sum(map(len, self.parts))
        return wire.Payload(
            size=size,
            content_bytes=self.content_bytes,
            sha256=digest.digest(),
            compression=_ZSTD if self.unpacked_size else "",
            unpacked_size=self.unpacked_size,
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the payload in chunks of up to `CHUNK_BYTES`."""
        waiting = bytearray()
        for part in (memoryview(whole) for whole in self.parts):
            start = 0
            while start < len(part):
                end = start + CHUNK_BYTES - len(waiting)
                if not waiting and end <= len(part):
                    yield bytes(part[start:end])
                else:
                    waiting += part[start:end]
                    if len(waiting) == CHUNK_BYTES:
                        yield bytes(waiting)
                        waiting.clear()
                start = end
        if waiting:
            yield bytes(waiting)


class Unpacking:
    """Assembles the chunks of one payload."""

    def __init__(self, header: wire.Payload, limit: int, *, keep: bool = True) -> None:
        """Start from the announced header.

        Args:
            header: of the payload; limit: maximum size in bytes, compressed or not.
            keep: whether to keep the chunks; if not, there is no content.

        Raises:
            TransportError: the payload is too large, or the compression is unknown.
        """
        size = max(header.size, header.unpacked_size)
        if size > limit:
            raise TransportError(f"a message has {size:,} bytes; at most {limit:,} are accepted")
        if header.compression not in ("", _ZSTD):
            raise TransportError(f'a message is compressed with "{header.compression[:20]}"; expected zstd')
        self._keep = keep
        self._header = header
        self._filled = 0
        self._data = bytearray()

    @property
    def complete(self) -> bool:
        """Whether the payload is complete."""
        return self._filled == self._header.size

    def add(self, chunk: bytes) -> None:
        """Add the next chunk.

        Raises:
            TransportError: the payload is longer than announced.
        """
        self._filled += len(chunk)
        if self._filled > self._header.size:
            raise TransportError(f"a message is longer than the {self._header.size:,} bytes announced")
        if self._keep:
            self._data += chunk  # grows with received data, never with what was only announced

    def content(self) -> RecordDict:
        """Return the content of the payload.

        Raises:
            TransportError: it was damaged in transit, or is malformed.
        """
        if hashlib.sha256(self._data).digest() != self._header.sha256:
            raise TransportError("a message was damaged in transit: its SHA-256 does not match")
        data: Buffer = self._data
        if self._header.compression:
            try:
                data = pa.decompress(data, self._header.unpacked_size, codec=_ZSTD, asbytes=True)
            except (OSError, ValueError) as error:
                raise TransportError("a message cannot be decompressed") from error
        return unpack(data, self._header.content_bytes)


def pack(content: RecordDict, compression: Literal["none", "zstd"] = "none") -> Packed:
    """Pack a RecordDict.

    Without compression the arrays are not copied, so they must not change until they are sent.
    """
    described = wire.Content(records=[_describe(name, record) for name, record in content.items()])
    head = described.SerializeToString()
    parts: list[Buffer] = [head]
    size = len(head)
    for record in content.array_records.values():
        for array in record.values():
            numbers = np.ascontiguousarray(view(array))
            padding = -size % _ALIGNMENT
            parts += [bytes(padding), numbers.reshape(-1).view(np.uint8).data]
            size += padding + numbers.nbytes
    parts = [part for part in parts if len(part)]
    if compression == "none" or not size:
        return Packed(len(head), parts)
    return Packed(len(head), [pa.compress(b"".join(parts), codec=_ZSTD, asbytes=True)], size)


def unpack(data: Buffer, content_bytes: int) -> RecordDict:
    """Return the RecordDict of a payload; its arrays are views of `data`.

    Raises:
        TransportError: the payload is malformed.
    """
    try:
        described = wire.Content.FromString(bytes(memoryview(data)[:content_bytes]))
    except DecodeError:
        raise TransportError("a message is not valid protobuf") from None
    content, position = RecordDict(), content_bytes
    for record in described.records:
        if record.kind == wire.Record.ARRAYS:
            arrays = ArrayRecord()
            for header in record.arrays:
                position += -position % _ALIGNMENT
                array = _array(header, data, position)
                arrays[header.name] = NumpyArray(array)
                position += array.nbytes
            content[record.name] = arrays
        else:
            content[record.name] = _values(record)
    if position != len(data):
        raise TransportError(f"a message has {len(data):,} bytes, but its records describe {position:,}")
    return content


def _describe(name: str, record: ArrayRecord | MetricRecord | ConfigRecord) -> wire.Record:
    if isinstance(record, ArrayRecord):
        headers = [wire.ArrayHeader(name=k, dtype=a.dtype, shape=a.shape) for k, a in record.items()]
        return wire.Record(name=name, kind=wire.Record.ARRAYS, arrays=headers)
    kind = wire.Record.METRICS if isinstance(record, MetricRecord) else wire.Record.CONFIG
    entries = []
    for key, value in record.items():
        values = value if isinstance(value, list) else [value]
        entries.append(wire.Entry(key=key, list=isinstance(value, list), values=map(_value, values)))
    return wire.Record(name=name, kind=kind, entries=entries)


def _value(value: Scalar) -> wire.Value:
    if isinstance(value, bool):
        return wire.Value(flag=value)
    if isinstance(value, int):
        return wire.Value(whole=value)
    if isinstance(value, float):
        return wire.Value(number=value)
    return wire.Value(text=value) if isinstance(value, str) else wire.Value(blob=value)


def _values(record: wire.Record) -> MetricRecord | ConfigRecord:
    found = {}
    for entry in record.entries:
        fields = [value.WhichOneof("value") for value in entry.values]
        if None in fields or not (entry.list or len(fields) == 1):
            raise TransportError("a message contains an entry without a value")
        values = [getattr(value, str(field)) for value, field in zip(entry.values, fields, strict=True)]
        found[entry.key] = values if entry.list else values[0]
    try:
        if record.kind == wire.Record.METRICS:
            return MetricRecord(found)
        if record.kind == wire.Record.CONFIG:
            return ConfigRecord(found)
    except TypeError:
        raise TransportError("a message contains values that its records cannot have") from None
    raise TransportError("a message contains a record of unknown kind")


def _array(header: wire.ArrayHeader, data: Buffer, position: int) -> np.ndarray:
    if header.dtype not in _DTYPES:
        raise TransportError("a message contains an array of a dtype that is not allowed")
    dtype = np.dtype(header.dtype).newbyteorder("<")
    count = math.prod(header.shape)
    if len(header.shape) > 32 or position + count * dtype.itemsize > len(data):
        raise TransportError("a message is shorter than the arrays that it describes")
    return np.frombuffer(data, dtype, count, position).reshape(tuple(header.shape))
