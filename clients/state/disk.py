"""A store of client states in a folder, for up to a hundred million clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.state.batch import StateBatch, ascending
from shoal.clients.state.layout import StateLayout
from shoal.clients.state.slot_file import SlotFile, checksums_of
from shoal.clients.state.slot_index import SlotIndex, entries_of
from shoal.clients.state.slot_journal import SlotJournal, sync_folder
from shoal.clients.state.store import START, Mark
from shoal.common.errors import CheckpointError, StorageError

PACKED: Final = 1 << 20  # bytes of states packed at a time, small enough for the processor's cache
CHECKED: Final = 1 << 23  # bytes of states that `restore` reads at a time


class DiskStateStore:
    """Keeps states in two files: records in slots, and a journal of which client's state is in which slot.

    A write goes to slots that no mark needs, and then to the end of the journal; a mark is a position in the
    journal. So a round costs what its cohort's states cost, whatever the number of clients, and a process
    killed at any instant loses at most the writes after the last mark. A store that is opened again has the
    states of the last mark, until `restore` is called.

    Args:
        folder: created with mode 0700 if it does not exist; the files get mode 0600.
        layout: of the states; `None` for the layout of the first write, or of a store already in the folder.

    Raises:
        RunError: another process uses the folder.
        ModelError: the folder holds states with another layout.
        CheckpointError: the folder's journal is not a journal of client states.
    """

    def __init__(self, folder: Path, layout: StateLayout | None = None) -> None:
        self._folder = folder
        with self._writing():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._journal = SlotJournal(folder / "journal.bin")
        self._slots: SlotFile | None = None
        self._index = SlotIndex()
        self._last = START
        self._oldest = 0  # position of the oldest mark that may be restored
        self._sound = True  # whether no mark has failed
        self._tail = False  # whether the journal file has entries after the current position
        try:
            if self._journal.layout is None and layout is not None:
                self._begin(layout)
            elif self._journal.layout is not None:
                if layout is not None:
                    self._journal.layout.require(layout)
                self._open_slots(self._journal.layout)
        except BaseException:
            self.close()
            raise
        entries = self._journal.entries()
        self._go_to(self._journal.marks(entries)[-1], entries)

    def read(self, clients: Sequence[int] | NDArray[np.int64]) -> StateBatch:
        """See `ClientStateStore.read`."""
        wanted = ascending(clients)
        if self._slots is None or self._journal.layout is None:
            return StateBatch(wanted[:0], {})
        found, slots, checksums = self._index.find(wanted)
        return self._journal.layout.unpack(found, self._checked(self._slots, found, slots, checksums))

    def write(self, batch: StateBatch) -> None:
        """See `ClientStateStore.write`."""
        if not len(batch):
            return
        layout = StateLayout.of(batch.arrays, stacked=True)
        if self._journal.layout is not None:
            self._journal.layout.require(layout)
        self._require_sound()
        file = self._slots or self._begin(layout)
        slots = self._index.allocate(len(batch))
        checksums = np.empty(len(batch), np.uint32)
        with self._writing():
            self._truncate()  # only now: opening a store must not change its files
            for rows in _parts(len(batch), layout.bytes_per_client, PACKED):
                records = layout.pack(batch, rows)
                checksums[rows] = checksums_of(records)
                file.write(slots[rows], records)
            entries = entries_of(batch.clients, slots, checksums)
            first = self._journal.position
            self._journal.append(entries)
        self._index.replace(entries, first, self._last.position)

    def mark(self) -> Mark:
        """See `ClientStateStore.mark`; without a write since the last mark, returns that mark again."""
        self._require_sound()
        if self._slots is not None and self._journal.position > self._last.position:
            # After a failed sync the content of the disk is unknown, and a second sync may wrongly succeed.
            self._sound = False
            with self._writing():
                self._slots.sync()
                self._last = self._journal.append_mark(self._oldest)
            self._sound = True
        return self._last

    def restore(self, mark: Mark) -> None:
        """See `ClientStateStore.restore`; reads every state once, to check it."""
        entries = self._journal.entries()
        if mark.position > self._last.position or mark not in self._journal.marks(entries):
            raise CheckpointError(
                f"{self._folder} does not hold the client states at {mark}",
                hint="use the folder that belongs to this checkpoint, or an earlier checkpoint",
            )
        if mark.position < self._oldest:
            raise CheckpointError(f"the client states at {mark} in {self._folder} were released")
        self._check(SlotIndex.replay(entries[: mark.position], 0))
        self._go_to(mark, entries)
        with self._writing():
            self._truncate()

    def release(self, oldest: Mark) -> None:
        """See `ClientStateStore.release`; files never shrink, but grow only when no slot is free."""
        if oldest.position > self._last.position:
            raise CheckpointError(f"{self._folder} has no mark {oldest}; the last one is {self._last}")
        self._oldest = max(self._oldest, oldest.position)
        self._index.release(self._oldest)

    @property
    def bytes_used(self) -> int:
        """Bytes of both files."""
        return self._journal.length + (self._slots.length if self._slots is not None else 0)

    def close(self) -> None:
        """See `ClientStateStore.close`."""
        if self._slots is not None:
            self._slots.close()
        self._journal.close()

    def _begin(self, layout: StateLayout) -> SlotFile:
        with self._writing():
            self._journal.begin(layout)
            file = self._open_slots(layout)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        return file

    def _open_slots(self, layout: StateLayout) -> SlotFile:
        self._slots = SlotFile(self._folder / "states.bin", layout.bytes_per_client)
        return self._slots

    def _go_to(self, mark: Mark, entries: NDArray[np.void]) -> None:
        self._journal.go_to(mark)
        self._last = mark
        if mark.position:
            self._oldest = max(self._oldest, int(entries["slot"][mark.position - 1]))
        self._tail = len(entries) > mark.position
        self._index = SlotIndex.replay(entries[: mark.position], self._oldest)

    def _truncate(self) -> None:
        if self._tail:
            self._journal.truncate()
            self._tail = False

    def _check(self, index: SlotIndex) -> None:
        clients, slots, checksums = index.live()
        if self._slots is None:
            return
        for rows in _parts(len(clients), self._slots.size, CHECKED):
            self._checked(self._slots, clients[rows], slots[rows], checksums[rows])

    def _checked(
        self,
        file: SlotFile,
        clients: NDArray[np.int64],
        slots: NDArray[np.int64],
        checksums: NDArray[np.uint32],
    ) -> NDArray[np.uint8]:
        records = file.read(slots)
        wrong = np.flatnonzero(checksums_of(records) != checksums)
        if len(wrong):
            raise CheckpointError(
                f"the state of client {clients[wrong[0]]} in {self._folder} is damaged "
                f"({len(wrong)} of {len(clients)} states read are)",
                hint="resume from an earlier checkpoint",
            )
        return records

    def _require_sound(self) -> None:
        if not self._sound:
            raise StorageError(
                f"the client states in {self._folder} could not be made durable before",
                hint="close the store, open it again and restore a mark",
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot write client states in {self._folder}: {error.strerror or error}",
                hint="marked states are kept; free disk space or replace the disk, then resume",
            ) from error


def _parts(count: int, size: int, at_once: int) -> Iterator[slice]:
    step = max(1, at_once // size)
    return (slice(first, first + step) for first in range(0, count, step))
