"""A Flower `Array` over a numpy array, which is serialised only if somebody asks for its bytes.

Flower's own `Array` turns numbers into bytes when it is made and back when it is read, which costs more
than the aggregation does. Between processes of one machine this one travels as it is: pickle hands its
buffer over as a whole, and Ray maps it from shared memory.
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
    """Holds a read-only view of a numpy array, which nobody may change from then on."""

    def __init__(self, values: NDArray[Any]) -> None:
        """Take an array of any shape; it is not copied."""
        view = values.view()
        view.flags.writeable = False
        # As `Array` has them; `data`, the fourth, is made on demand.
        self.__dict__.update(dtype=str(view.dtype), shape=view.shape, stype=_STYPE, values=view)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array in npy format, made anew each time."""
        buffer = BytesIO()
        np.save(buffer, self.__dict__["values"], allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """Return a copy, as `Array` does: some strategies write into what they get."""
        return np.array(self.__dict__["values"])

    def deflate(self) -> bytes:
        """Serialise as what it is to Flower, whose format names the class."""
        return Array(self.view).deflate()

    @property
    def view(self) -> NDArray[Any]:
        """The array itself, read-only."""
        found: NDArray[Any] = self.__dict__["values"]
        return found


def view(array: Array) -> NDArray[Any]:
    """Return an array's numbers to read, without a copy where that can be."""
    return array.view if isinstance(array, NumpyArray) else array.numpy()


def count_bytes(record: ArrayRecord) -> int:
    """Return the bytes of a record as `ArrayRecord.count_bytes` does, without making them."""
    return sum(len(key) + _array_bytes(array) for key, array in record.items())


def _array_bytes(array: Array) -> int:
    return _HEADER_BYTES + array.view.nbytes if isinstance(array, NumpyArray) else len(array.data)
