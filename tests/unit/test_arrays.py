"""Flower's `Array` over numpy: the same to whoever reads it, and not copied between processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from shoal.common.arrays import NumpyArray, count_bytes, view
from shoal.common.weights import weights_to_record

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(1.5),  # a number without dimensions
    np.zeros((0, 4), np.int64),
    np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
]


@pytest.mark.parametrize("values", ARRAYS)
def test_what_flower_reads_is_what_its_own_array_holds(values: np.ndarray) -> None:
    ours, stock = NumpyArray(values), Array(values)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
        stock.dtype,
        stock.shape,
        stock.stype,
        stock.data,
    )
    assert ours.object_id == stock.object_id  # a hash over the serialised object
    np.testing.assert_array_equal(ours.numpy(), stock.numpy())
    assert count_bytes(ArrayRecord({"k": stock})) == ArrayRecord({"k": stock}).count_bytes()
    assert count_bytes(weights_to_record([values])) == ArrayRecord([values]).count_bytes()


def test_a_reader_gets_a_copy_that_it_may_write_into() -> None:
    array = NumpyArray(np.ones(3, np.float32))
    array.numpy()[:] = 7
    np.testing.assert_array_equal(view(array), np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        view(array)[:] = 7


def test_its_buffer_travels_outside_the_pickle() -> None:
    """A megabyte of numbers is one buffer beside a pickle of a few hundred bytes, and is not copied."""
    values = np.arange(1 << 18, dtype=np.float32)
    buffers: list[pickle.PickleBuffer] = []
    told = pickle.dumps(weights_to_record([values]), protocol=5, buffer_callback=buffers.append)
    assert len(told) < 1000
    assert [b.raw().nbytes for b in buffers] == [values.nbytes]
    back = pickle.loads(told, buffers=buffers)
    assert np.shares_memory(view(back["0"]), values)
    assert back["0"] == NumpyArray(values)
