"""The names, shapes and types that all states of a run share, and their form as records of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.state.batch import StateBatch
from shoal.common.errors import ModelError


@dataclass(frozen=True)
class StateLayout:
    """The arrays of a client's state.

    Attributes:
        record: a structured dtype without padding, with one field for each array, by name.
    """

    record: np.dtype[np.void]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], *, stacked: bool = False) -> StateLayout:
        """Return the layout of a state.

        Args:
            arrays: a client's state; if `stacked`, the states of several clients, each (k, ...).

        Raises:
            ModelError: the state is empty, or holds values other than numbers.
        """
        fields = [(name, array.dtype, array.shape[stacked:]) for name, array in sorted(arrays.items())]
        for name, kind, _ in fields:
            if kind.kind not in "biufc" or not name:
                raise ModelError(f'the state "{name}" is of type {kind}; expected numbers with a name')
        layout = cls(np.dtype([(name, kind.str, shape) for name, kind, shape in fields]))
        if not layout.bytes_per_client:
            raise ModelError("a client's state must hold at least one number")
        return layout

    @classmethod
    def from_json(cls, fields: list[list[Any]]) -> StateLayout:
        """Return the layout that `to_json` described."""
        return cls(np.dtype([(name, kind, tuple(shape)) for name, kind, shape in fields]))

    def to_json(self) -> list[list[Any]]:
        """Return [name, numpy type code, shape] for each array, in order of their names."""
        return [[name, kind.base.str, list(kind.shape)] for name, kind in self._fields()]

    @property
    def bytes_per_client(self) -> int:
        """Length of a state's record."""
        return self.record.itemsize

    def require(self, other: StateLayout) -> None:
        """Raise `ModelError` with the first difference unless `other` equals this layout."""
        kept, given = self._described(), other._described()
        for name in sorted(kept.keys() | given.keys()):
            if kept.get(name) != given.get(name):
                raise ModelError(
                    f'the state "{name}" is {given.get(name, "absent")}; '
                    f"expected {kept.get(name, 'absent')}, as in the existing states",
                    hint="states of another model or algorithm cannot be used; start a new run",
                )

    def pack(self, batch: StateBatch, rows: slice = slice(None)) -> NDArray[np.uint8]:
        """Return these rows of a batch as records, (rows, bytes_per_client)."""
        records = np.empty(len(batch.clients[rows]), self.record)
        for name, array in batch.arrays.items():
            records[name] = array[rows]
        return records.view(np.uint8).reshape(len(records), -1)

    def unpack(self, clients: NDArray[np.int64], records: NDArray[np.uint8]) -> StateBatch:
        """Return the states of `clients` from their records, (k, bytes_per_client)."""
        fields = records.reshape(-1).view(self.record)
        return StateBatch(clients, {name: np.ascontiguousarray(fields[name]) for name, _ in self._fields()})

    def _described(self) -> dict[str, str]:
        return {name: f"{kind.base} of shape {kind.shape}" for name, kind in self._fields()}

    def _fields(self) -> list[tuple[str, np.dtype[Any]]]:
        return [(name, self.record[name]) for name in self.record.names or ()]
