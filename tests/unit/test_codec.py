"""Laws of the wire format: what is packed comes back, and nothing else is ever taken."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shoal.common.arrays import view
from shoal.common.errors import TransportError
from shoal.common.weights import weights_to_record
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.codec import CHUNK_BYTES, Packed, Unpacking, pack, unpack

texts = st.text(max_size=8)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
# Flower's records hold lists of one type, of which only empty ones may be of any.
scalars = [st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts, st.binary()]
values = st.one_of([one | st.lists(one, max_size=4) for one in scalars])
arrays = npst.arrays(
    st.sampled_from(["bool", "float16", "float32", "float64", "int8", "int64", "uint8", "uint32"]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
contents = st.builds(
    lambda weights, metrics, config: RecordDict(
        {"arrays": weights_to_record(weights), "metrics": MetricRecord(metrics), "c": ConfigRecord(config)}
    ),
    st.lists(arrays, max_size=4),
    st.dictionaries(texts, numbers, max_size=4),
    st.dictionaries(texts, values, max_size=4),
)


def sent(packed: Packed, limit: int = 1 << 40) -> RecordDict:
    unpacking = Unpacking(packed.header, limit)
    for chunk in packed.chunks():
        assert 0 < len(chunk) <= CHUNK_BYTES
        unpacking.add(chunk)
    assert unpacking.complete
    return unpacking.content()


@settings(deadline=None)
@given(contents)
def test_what_is_packed_comes_back(content: RecordDict) -> None:
    found = sent(pack(content))
    assert dict(found["metrics"]) == dict(content["metrics"])
    assert dict(found["c"]) == dict(content["c"])
    for key, value in content["c"].items():
        assert type(found["c"][key]) is type(value)
    before = [view(array) for array in content["arrays"].values()]
    after = [view(array) for array in found["arrays"].values()]
    assert [(a.dtype, a.shape, a.tobytes()) for a in after] == [
        (a.dtype, a.shape, a.tobytes()) for a in before
    ]


def test_arrays_of_flower_s_own_and_of_any_layout() -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    content = RecordDict({"a": ArrayRecord({"flower": Array(turned)}), "b": weights_to_record([turned])})
    found = sent(pack(content))
    np.testing.assert_array_equal(view(found["a"]["flower"]), turned)
    np.testing.assert_array_equal(view(found["b"]["0"]), turned)


def test_large_arrays_travel_in_chunks_and_are_aligned() -> None:
    rng = np.random.default_rng(1)
    weights = [rng.random(n).astype(np.float32) for n in (3, CHUNK_BYTES, 5)]
    packed = pack(RecordDict({"arrays": weights_to_record(weights)}))
    # 4 MiB and a little: three numbers, the description and the paddings make a fifth chunk.
    assert len(list(packed.chunks())) == 5
    found = [view(array) for array in sent(packed)["arrays"].values()]
    assert all(np.array_equal(a, b) for a, b in zip(found, weights, strict=True))
    assert not any(array.flags.writeable for array in found)


def test_a_damaged_payload_is_refused() -> None:
    packed = pack(RecordDict({"arrays": weights_to_record([np.zeros(9, np.float32)])}))
    unpacking = Unpacking(packed.header, 1 << 20)
    data = bytearray(b"".join(packed.chunks()))
    data[-1] ^= 1
    unpacking.add(bytes(data))
    with pytest.raises(TransportError, match="damaged"):
        unpacking.content()


def test_more_than_allowed_or_announced_is_refused() -> None:
    packed = pack(RecordDict({"arrays": weights_to_record([np.zeros(9, np.float32)])}))
    with pytest.raises(TransportError, match="at most 10 are accepted"):
        Unpacking(packed.header, 10)
    unpacking = Unpacking(packed.header, 1 << 20)
    with pytest.raises(TransportError, match="longer than the"):
        unpacking.add(bytes(packed.header.size + 1))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (wire.ArrayHeader(name="0", dtype="object", shape=[1]), "of a dtype that is not allowed"),
        (wire.ArrayHeader(name="0", dtype="float32", shape=[2**40]), "shorter than the arrays"),
        (wire.ArrayHeader(name="0", dtype="float32", shape=[2**63, 2**63]), "shorter than the arrays"),
        (wire.ArrayHeader(name="0", dtype="float32", shape=[1] * 40), "shorter than the arrays"),
        (wire.ArrayHeader(name="0", dtype="float32", shape=[]), "shorter than the arrays"),
    ],
)
def test_arrays_that_cannot_be_are_refused(header: wire.ArrayHeader, reason: str) -> None:
    record = wire.Record(name="arrays", kind=wire.Record.ARRAYS, arrays=[header])
    data = wire.Content(records=[record]).SerializeToString()
    with pytest.raises(TransportError, match=reason):
        unpack(data, len(data))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.integers(0, 100))
def test_random_bytes_are_refused_or_read_but_never_worse(data: bytes, size: int) -> None:
    with contextlib.suppress(TransportError):
        unpack(data, size)


@settings(deadline=None, max_examples=200)
@given(contents, st.data())
def test_changed_bytes_are_refused_or_read_but_never_worse(content: RecordDict, data: Any) -> None:
    packed = pack(content)
    raw = bytearray(b"".join(packed.chunks()))
    for place in data.draw(st.lists(st.integers(0, max(0, len(raw) - 1)), max_size=3)) if raw else ():
        raw[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TransportError):
        unpack(raw, packed.content_bytes)
