"""A file of records of equal length, read and written many at a time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAGE: Final = 4096  # bytes that the system reads at once anyway


class SlotFile:
    """Records of `size` bytes, numbered from 0.

    Reads and writes are one system call for each run of adjacent slots, not a memory map: pages of a map
    count as this process's memory, and a disk failure kills the process by a signal instead of raising an
    error.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def read(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the records in these slots, (k, size); zeros beyond the end of the file."""
        order = np.argsort(slots)
        ordered = slots[order]
        found = np.zeros((len(slots), self.size), np.uint8)
        # Slots less than a page apart are read in one call, which also bounds the bytes read needlessly.
        runs = list(_runs(ordered, 1 + PAGE // self.size))
        for first, last in runs:  # the disk fetches all of them at once instead of one by one
            base, count = int(ordered[first]), int(ordered[last - 1] - ordered[first]) + 1
            os.posix_fadvise(self._file, base * self.size, count * self.size, os.POSIX_FADV_WILLNEED)
        for first, last in runs:
            if last - first == 1:
                self._fill(found[order[first]], int(ordered[first]))
                continue
            base = ordered[first]
            span = np.zeros((ordered[last - 1] - base + 1, self.size), np.uint8)
            self._fill(span.reshape(-1), int(base))
            found[order[first:last]] = span[ordered[first:last] - base]
        return found

    def write(self, slots: NDArray[np.int64], records: NDArray[np.uint8]) -> None:
        """Write records, (k, size), to these slots, which are ascending.

        Raises:
            OSError: the disk is full or has failed; these slots may hold anything, all others are unchanged.
        """
        for first, last in _runs(slots, 1):
            rest = records[first:last].reshape(-1).data
            offset = int(slots[first]) * self.size
            while rest:
                written = os.pwrite(self._file, rest, offset)
                rest, offset = rest[written:], offset + written

    def sync(self) -> None:
        """Wait until everything written is on disk."""
        os.fdatasync(self._file)

    @property
    def length(self) -> int:
        """Length of the file in bytes."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _fill(self, target: NDArray[np.uint8], slot: int) -> None:
        rest, offset = target.data, slot * self.size
        while rest:
            count = os.preadv(self._file, [rest], offset)
            if not count:
                return
            rest, offset = rest[count:], offset + count


def checksums_of(records: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each record, (k,), from (k, size).

    One call per record is faster than any checksum of the same size that numpy could compute itself.
    """
    return np.fromiter((zlib.crc32(record) for record in records), np.uint32, len(records))


def _runs(slots: NDArray[np.int64], gap: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of each run of ascending slots at most `gap` apart."""
    ends = np.append(np.flatnonzero(np.diff(slots) > gap) + 1, len(slots)).tolist()
    first = 0
    for last in ends:
        if last > first:
            yield first, last
        first = last
