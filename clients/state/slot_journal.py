"""The journal of a store on disk: which slot was written for which client, in order.

The file begins with a line of JSON that gives the layout of the states. Entries of one length follow. A mark
is an entry too: it holds the checksum of all up to it, which tells a marked tail from a torn or damaged one.
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
MARK: Final = -1  # instead of a client; the slot is then the position of the oldest mark that is still wanted
FORMAT: Final = "shoal client states 1"


class SlotJournal:
    """The journal's file, locked for as long as it is open.

    Args:
        path: of the file, which is created if there is none.

    Attributes:
        layout: of the states, `None` before `begin`.
        position: entries that count; what lies behind them in the file is overwritten.

    Raises:
        RunError: another process has it open.
        CheckpointError: it is no journal of client states.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.layout: StateLayout | None = None
        self.position = 0
        self._start = 0  # bytes before the first entry
        self._seed = 0  # checksum of those
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
        """Write the head of a new journal."""
        fields = {"format": FORMAT, "layout": layout.to_json(), "checksum": _layout_checksum(layout)}
        head = json.dumps(fields).encode() + b"\n"
        os.ftruncate(self._file, 0)
        self._write(head, 0)
        os.fsync(self._file)
        self.layout, self._start = layout, len(head)
        self._seed = self._checksum = zlib.crc32(head)

    def entries(self) -> NDArray[np.void]:
        """Return all whole entries in the file, also those after `position`."""
        size = os.fstat(self._file).st_size - self._start
        content = np.zeros(max(size, 0) // ENTRY.itemsize, ENTRY)
        rest, offset = content.view(np.uint8).data, self._start
        while rest and (count := os.preadv(self._file, [rest], offset)):
            rest, offset = rest[count:], offset + count
        return content

    def marks(self, entries: NDArray[np.void]) -> list[Mark]:
        """Return `START` and the marks up to which these entries are as they were written, in order."""
        found, checksum, first = [START], self._seed, 0
        for last in np.flatnonzero(entries["client"] == MARK).tolist():
            checksum = _mark_checksum(entries[last], zlib.crc32(entries[first:last].data, checksum))
            if entries["checksum"][last] != checksum:
                break
            first = last + 1
            found.append(Mark(first, checksum))
        return found

    def go_to(self, mark: Mark) -> None:
        """Let the next entry follow that mark, which is one of `marks`."""
        self.position = mark.position
        self._checksum = mark.checksum if mark.position else self._seed

    def cut(self) -> None:
        """Remove what lies behind `position`, so that no later start takes it for the present."""
        os.ftruncate(self._file, self.length)
        os.fsync(self._file)

    def append(self, entries: NDArray[np.void]) -> None:
        """Append entries; they count only once all of them are written."""
        self._write(entries.tobytes(), self.length)
        self.position += len(entries)
        self._checksum = zlib.crc32(entries.data, self._checksum)

    def append_mark(self, oldest: int) -> Mark:
        """Append a mark, and wait until the disk has it.

        Args:
            oldest: position of the oldest mark that is still wanted.
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
        """Let go of the file and its lock."""
        os.close(self._file)

    def _write(self, content: bytes, offset: int) -> None:
        while content:
            count = os.pwrite(self._file, content, offset)
            content, offset = content[count:], offset + count

    def _read_head(self) -> None:
        head, end, _ = os.pread(self._file, 1 << 20, 0).partition(b"\n")
        if not end:  # new, or stopped before its head was written: nothing was marked
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
        os.fdatasync(self._file)  # a mark may be in the system's memory only, if its writer was killed


def _mark_checksum(entry: np.void, before: int) -> int:
    # Without its own checksum: the CRC of a text that ends with its CRC is the same for all texts.
    return zlib.crc32(entry.tobytes()[: -entry["checksum"].itemsize], before)


def _layout_checksum(layout: StateLayout) -> int:
    return zlib.crc32(json.dumps(layout.to_json()).encode())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of the files in a folder."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
