"""A store of client states in memory: for tests, and for runs that need not survive their process."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shoal.clients.state.batch import StateBatch, ascending
from shoal.clients.state.layout import StateLayout
from shoal.clients.state.store import START, Mark
from shoal.common.errors import CheckpointError


@dataclass(frozen=True)
class _Undo:
    """The data that undoes one write."""

    mark: Mark  # the last mark before the write
    new: NDArray[np.int64]  # clients that had no state
    rows: NDArray[np.int64]  # rows of the other clients
    records: NDArray[np.uint8]  # previous contents of those rows


class MemoryStateStore:
    """Keeps states in one array, in order of first write, and the data that undoes each write after a mark.

    Marks do not survive the process.

    Args:
        layout: of the states; `None` for the layout of the first write.
    """

    def __init__(self, layout: StateLayout | None = None) -> None:
        self._layout = layout
        self._row = np.empty(0, np.int64)  # row of each client, -1 without a state
        self._records = np.empty((0, layout.bytes_per_client if layout else 0), np.uint8)
        self._used = 0  # used rows of `_records`
        self._now = START  # the current position, as a mark
        self._marks = [START]  # marks that can be restored
        self._undo: list[_Undo] = []  # writes since the first of them

    def read(self, clients: Sequence[int] | NDArray[np.int64]) -> StateBatch:
        """See `ClientStateStore.read`."""
        found = ascending(clients)
        if self._layout is None:
            return StateBatch(found[:0], {})
        found = found[found < len(self._row)]
        found = found[self._row[found] >= 0]
        return self._layout.unpack(found, self._records[self._row[found]])

    def write(self, batch: StateBatch) -> None:
        """See `ClientStateStore.write`."""
        if not len(batch):
            return
        layout = StateLayout.of(batch.arrays, stacked=True)
        if self._layout is None:
            self._layout = layout
            self._records = np.empty((0, layout.bytes_per_client), np.uint8)
        self._layout.require(layout)
        records = layout.pack(batch)
        clients = batch.clients
        self._grow_index(int(clients[-1]) + 1)
        has = self._row[clients] >= 0
        rows, new = self._row[clients[has]], clients[~has]
        self._undo.append(_Undo(self._marks[-1], new, rows, self._records[rows]))
        self._row[new] = np.arange(self._used, self._used + len(new))
        self._used += len(new)
        self._grow_records()
        self._records[self._row[clients]] = records
        checksum = zlib.crc32(records.data, zlib.crc32(clients.data, self._now.checksum))
        self._now = Mark(self._now.position + len(clients), checksum)

    def mark(self) -> Mark:
        """See `ClientStateStore.mark`; nothing in memory survives the process."""
        if self._now != self._marks[-1]:
            self._marks.append(self._now)
        return self._now

    def restore(self, mark: Mark) -> None:
        """See `ClientStateStore.restore`."""
        self._require(mark)
        while self._undo and self._undo[-1].mark.position >= mark.position:
            undo = self._undo.pop()
            self._records[undo.rows] = undo.records
            self._row[undo.new] = -1
            self._used -= len(undo.new)  # new rows are always the last ones
        self._marks = self._marks[: self._marks.index(mark) + 1]
        self._now = mark

    def release(self, oldest: Mark) -> None:
        """See `ClientStateStore.release`."""
        if oldest.position < self._marks[0].position:
            return
        self._require(oldest)
        self._marks = self._marks[self._marks.index(oldest) :]
        self._undo = [undo for undo in self._undo if undo.mark.position >= oldest.position]

    @property
    def bytes_used(self) -> int:
        """Bytes of the states, of the undo data, and of the index."""
        return self._records.nbytes + sum(undo.records.nbytes for undo in self._undo) + self._row.nbytes

    def close(self) -> None:
        """See `ClientStateStore.close`; there is nothing to release."""

    def _require(self, mark: Mark) -> None:
        if mark not in self._marks:
            raise CheckpointError(
                f"this store in memory does not hold the client states at {mark}",
                hint="states in memory are lost when their process ends; use a store on disk to resume a run",
            )

    def _grow_index(self, clients: int) -> None:
        more = clients - len(self._row)
        if more > 0:
            self._row = np.append(self._row, np.full(max(more, len(self._row) // 2), -1))

    def _grow_records(self) -> None:
        if self._used > len(self._records):
            rows = max(self._used, len(self._records) * 3 // 2)  # so that it is rarely copied
            grown = np.empty((rows, self._records.shape[1]), np.uint8)
            grown[: len(self._records)] = self._records
            self._records = grown
