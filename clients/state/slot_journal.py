"""The journal of a store on disk: which slot was written for which client, in order.

The file begins with a line of JSON that gives the layout of the states. Entries of equal length follow. A
mark is an entry too: it holds the checksum of all entries up to it, which detects a torn or damaged file.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.state.layout import StateLayout
from shoal.clients.state.store import START, Mark
from shoal.common.errors import CheckpointError, RunError

ENTRY: Final = np.dtype([("client", "<i8"), ("slot", "<i8"), ("checksum", "<u4")])
MARK: Final = -1  # in place of a client; the slot is then the position of the oldest retained mark
FORMAT: Final = "shoal client states 1"


class SlotJournal:
    """The journal file, locked while it is open.

    Args:
        path: of the file, which is created if it does not exist.

    Attributes:
        layout: of the states, `None` before `begin`.
        position: number of valid entries; entries after them in the file are overwritten.

    Raises:
        RunError: another process has it open.
        CheckpointError: the file is not a journal of client states.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.layout: StateLayout | None = None
        self.position = 0
        self._start = 0  # bytes before the first entry
        self._seed = 0  # checksum of those bytes
        self._checksum = 0  # of everything up to `position`
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read_head()
        except BlockingIOError as error:
            os.close(self._file)
            raise RunError(f"another process is using the client states in {path.parent}") from error
        except BaseException:
            os.close(self._file)
            raise

    def begin(self, layout: StateLayout) -> None:
        """Write the header of a new journal."""
        fields = {"format": FORMAT, "layout": layout.to_json(), "checksum": _layout_checksum(layout)}
        head = json.dumps(fields).encode() + b"\n"
        os.ftruncate(self._file, 0)
        self._write(head, 0)
        os.fsync(self._file)
        self.layout, self._start = layout, len(head)
        self._seed = self._checksum = zlib.crc32(head)

    def entries(self) -> NDArray[np.void]:
        """Return all complete entries in the file, including those after `position`."""
        size = os.fstat(self._file).st_size - self._start
        content = np.zeros(max(size, 0) // ENTRY.itemsize, ENTRY)
        rest, offset = content.view(np.uint8).data, self._start
        while rest and (count := os.preadv(self._file, [rest], offset)):
            rest, offset = rest[count:], offset + count
        return content

    def marks(self, entries: NDArray[np.void]) -> list[Mark]:
        """Return `START` and all marks whose checksum confirms the entries up to them, in order."""
        found, checksum, first = [START], self._seed, 0
        for last in np.flatnonzero(entries["client"] == MARK).tolist():
            checksum = _mark_checksum(entries[last], zlib.crc32(entries[first:last].data, checksum))
            if entries["checksum"][last] != checksum:
                break
            first = last + 1
            found.append(Mark(first, checksum))
        return found

    def go_to(self, mark: Mark) -> None:
        """Continue after that mark, which is one of `marks`."""
        self.position = mark.position
        self._checksum = mark.checksum if mark.position else self._seed

    def truncate(self) -> None:
        """Remove entries after `position`, so that they are never taken for valid ones later."""
        os.ftruncate(self._file, self.length)
        os.fsync(self._file)

    def append(self, entries: NDArray[np.void]) -> None:
        """Append entries; they are valid only once all of them are written."""
        self._write(entries.tobytes(), self.length)
        self.position += len(entries)
        self._checksum = zlib.crc32(entries.data, self._checksum)

    def append_mark(self, oldest: int) -> Mark:
        """Append a mark, and wait until it is on disk.

        Args:
            oldest: position of the oldest retained mark.
        """
        entry = np.array([(MARK, oldest, 0)], ENTRY)
        checksum = _mark_checksum(entry[0], self._checksum)
        entry["checksum"] = checksum
        self.append(entry)
        self._checksum = checksum
        os.fdatasync(self._file)
        return Mark(self.position, self._checksum)

    @property
    def length(self) -> int:
        """Bytes up to `position`."""
        return self._start + self.position * ENTRY.itemsize

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._file)

    def _write(self, content: bytes, offset: int) -> None:
        while content:
            count = os.pwrite(self._file, content, offset)
            content, offset = content[count:], offset + count

    def _read_head(self) -> None:
        head, end, _ = os.pread(self._file, 1 << 20, 0).partition(b"\n")
        if not end:  # new, or interrupted before its header was written: there are no marks
            return
        try:
            fields = json.loads(head)
            if fields["format"] != FORMAT:
                raise ValueError(fields["format"])
            layout = StateLayout.from_json(fields["layout"])
            if fields["checksum"] != _layout_checksum(layout):
                raise ValueError(fields["checksum"])
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{self._path} is not a journal of client states of this version"
            ) from error
        self.layout, self._start = layout, len(head) + 1
        self._seed = self._checksum = zlib.crc32(head + b"\n")
        os.fdatasync(self._file)  # if its writer was killed, a mark may not be on disk yet


def _mark_checksum(entry: np.void, before: int) -> int:
    # Without its own checksum: the CRC of data followed by its own CRC is a constant.
    return zlib.crc32(entry.tobytes()[: -entry["checksum"].itemsize], before)


def _layout_checksum(layout: StateLayout) -> int:
    return zlib.crc32(json.dumps(layout.to_json()).encode())


def sync_folder(folder: Path) -> None:
    """Wait until the file names in a folder are on disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
