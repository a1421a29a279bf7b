"""A Flower `Array` over a numpy array, which is serialised only when its bytes are needed.

Flower's own `Array` serialises numbers when it is created and deserialises them when it is read, which costs
more than the aggregation. Between processes of one machine this class needs no serialisation: pickle passes
its buffer on as a whole, and Ray maps it from shared memory.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

_STYPE = "numpy.ndarray"
_HEADER_BYTES = 128  # of the npy format, for any array of a model


class NumpyArray(Array):
    """Holds a read-only view of a numpy array, which must not be modified afterwards."""

    def __init__(self, values: NDArray[Any]) -> None:
        """Wrap an array of any shape, without a copy."""
        view = values.view()
        view.flags.writeable = False
        # The fields of `Array`; `data`, the fourth, is computed on demand.
        self.__dict__.update(dtype=str(view.dtype), shape=view.shape, stype=_STYPE, values=view)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array in npy format, computed on each access."""
        buffer = BytesIO()
        np.save(buffer, self.__dict__["values"], allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """Return a copy, as `Array` does: some strategies write into it."""
        return np.array(self.__dict__["values"])

    def deflate(self) -> bytes:
        """Serialise as a plain `Array`: Flower's format contains the class name."""
        return Array(self.view).deflate()

    @property
    def view(self) -> NDArray[Any]:
        """The array itself, read-only."""
        found: NDArray[Any] = self.__dict__["values"]
        return found


def view(array: Array) -> NDArray[Any]:
    """Return an array's values for reading, without a copy if possible."""
    return array.view if isinstance(array, NumpyArray) else array.numpy()


def count_bytes(record: ArrayRecord) -> int:
    """Return the bytes of a record as `ArrayRecord.count_bytes` does, without serialising it."""
    return sum(len(key) + _array_bytes(array) for key, array in record.items())


def _array_bytes(array: Array) -> int:
    return _HEADER_BYTES + array.view.nbytes if isinstance(array, NumpyArray) else len(array.data)
