"""Durable files: an append-only file of JSON lines that survives `kill -9`, and atomic writes for all others.

Whatever must outlive a crash is written through this module, which alone loops over short writes and syncs
files and, where it made one, their folder: a file that was synced is still lost in a power cut if the folder
that lists it was not.

A reader sees a line whole or, if the machine stopped in between, as a torn last line, which reading skips and
the next append cuts off. The writer holds a lock on the file that the kernel drops when the process ends in
any way: so a reader can tell a running from a killed run.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

from shoal.common.errors import RunError

_PLAIN = frozenset({str, bool, int, type(None)})
_BLOCK = 65_536  # bytes that the search for the last line reads at once


def plain(value: Any) -> Any:
    """Turn a value into what strict JSON can hold.

    Numbers that are not finite become the texts "NaN", "Infinity" and "-Infinity", which `float` reads back.
    """
    # The first two are asked a thousand times a round, and `isinstance` of an abstract class is slow.
    if type(value) in _PLAIN or (type(value) is float and math.isfinite(value)):
        return value
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return plain(value.tolist())
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Write a file durably, so that a reader finds the old one or the new one, never a part.

    Args:
        path: the file; content: of it, text as UTF-8.
        mode: permissions of the file, less the umask of the process.

    Raises:
        OSError: it could not be written; the old file, if any, is still there.
    """
    with replacing(path, mode=mode) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path` for writing, which replaces it once it is complete and synced.

    Args:
        path: the file; mode: permissions of the file, less the umask of the process.

    Raises:
        OSError: it could not be written; the old file, if any, is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
        move_into_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def move_into_place(whole: Path, path: Path) -> None:
    """Give a file that is written to its end another name in the same folder, durably.

    Raises:
        OSError: it cannot be moved, or the disk fails.
    """
    descriptor = os.open(whole, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    whole.replace(path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, durably.

    Raises:
        FileExistsError: there is one already, or a file of that name.
        OSError: it cannot be made.
    """
    for missing in reversed([parent for parent in path.parents if not parent.exists()]):
        missing.mkdir(exist_ok=True)
        sync_folder(missing.parent)
    path.mkdir()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: of files just made, renamed or removed."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    """Return the time in UTC, e.g. "2026-01-31T08:15:30.125Z"."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add one line of JSON to a file that other processes may write too; it is on disk when this returns.

    Raises:
        OSError: it could not be written; then the file is as before.
    """
    journal = Journal(path, wait=True)  # held for this one line only
    try:
        journal.write(f"{json.dumps(entry)}\n".encode(), sync=True)
    finally:
        journal.close()


class Journal:
    """A file of JSON lines, e.g. the events of one run.

    Args:
        path: the file; it need not exist before the first `append`.
        wait: where another process holds the file, wait for it instead of refusing.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path = path
        self._wait = wait
        self._file: int | None = None

    def append(self, event: str, content: Mapping[str, Any], *, sync: bool) -> None:
        """Append one event.

        Args:
            event: its kind.
            content: further fields; anything that `plain` takes.
            sync: wait until the disk has it. Without, the operating system has it, so it outlives
                this process but not a power cut.

        Raises:
            RunError: another process is writing to the same file.
            OSError: it could not be written; see `write`.
        """
        fields = {"event": event, "time": now(), **plain(content)}
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        self.write(f"{line}\n".encode(), sync=sync)

    def write(self, line: bytes, *, sync: bool) -> None:
        """Append one line, its end included, as it is.

        Raises:
            RunError: another process is writing to the same file.
            OSError: it could not be written, e.g. because the disk is full. The file is let go of; the
                next `write` cuts off what had got there of the line.
        """
        file = self._open()[0] if self._file is None else self._file
        try:
            while line:  # a disk that is nearly full takes a part
                line = line[os.write(file, line) :]
            if sync:
                os.fsync(file)
        except OSError:
            self.close()
            raise

    def sync(self) -> None:
        """Wait until the disk has all that was appended."""
        if self._file is not None:
            os.fsync(self._file)

    def take(self) -> tuple[bytes, bytes]:
        """Take the file before the first `append`; a torn last line is cut off.

        Returns:
            the last whole line, without its end; and what was cut off.

        Raises:
            RunError: another process is writing to the same file.
        """
        file, torn = self._open()
        end = max(os.fstat(file).st_size - 1, 0)  # without the last line's end
        start = _end_of_lines(file, end)
        return os.pread(file, end - start, start), torn

    def _open(self) -> tuple[int, bytes]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
            except OSError as error:
                raise RunError(f"another process is writing to {self.path.parent}") from error
            size = os.fstat(file).st_size
            whole = _end_of_lines(file, size)
            torn = os.pread(file, size - whole, whole)
            if torn:
                os.ftruncate(file, whole)
            if not whole:  # an empty file may be new
                sync_folder(self.path.parent)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return file, torn

    def close(self) -> None:
        """Let go of the file; a later `append` takes it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def is_being_written(self) -> bool:
        """Whether a living process, this one included, holds the file."""
        if self._file is not None:
            return True
        try:
            with self.path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no such file, or a file system without locks
            return False
        return False

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield all events in order; a torn last line is left out.

        Raises:
            RunError: the file cannot be read, or a line in the middle of it is damaged.
        """
        for _, event in self.follow().new():
            yield event

    def read_at(self, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the events at positions that a `Follower` gave, and parse no others."""
        with self.path.open("rb") as stream:
            for position in positions:
                stream.seek(position)
                yield json.loads(stream.readline())

    def follow(self) -> Follower:
        """Return a reader of all events, also of those that are still to come."""
        return Follower(self.path)


class Follower:
    """Reads a file of JSON lines while it grows; each line is read and parsed once.

    Args:
        path: the file.

    Attributes:
        offset: length in bytes of the lines read so far; lines: their number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.offset = 0
        self.lines = 0

    def new(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (position in bytes, event) of each line since the last call.

        A line that is still being written is left for the next call.

        Raises:
            RunError: the file cannot be read, or a line in the middle of it is damaged.
        """
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise RunError(f"cannot read {self._path}: {error.strerror or error}") from error
        with stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                try:
                    event = json.loads(line)
                except ValueError as error:
                    if next(stream, None) is None:  # torn by a power cut, after the file had grown
                        return
                    raise RunError(
                        f"line {self.lines + 1} of {self._path} is damaged",
                        hint="Remove that line to read the others.",
                    ) from error
                position = self.offset
                self.offset += len(line)
                self.lines += 1
                yield position, event


def _end_of_lines(file: int, size: int) -> int:
    """Return the length of the whole lines in the first `size` bytes of a file."""
    while size:
        start = max(size - _BLOCK, 0)
        found = os.pread(file, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0
