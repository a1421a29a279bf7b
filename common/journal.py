"""An append-only file of JSON lines that survives `kill -9`, and atomic writes for all other files.

A line is written by one `write`, so a reader sees it whole or, if the machine stopped in between, as a
torn last line, which reading skips and the next append cuts off. The writer holds a lock on the file
that the kernel drops when the process ends in any way: so a reader can tell a running from a killed run.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from shoal.common.errors import RunError

_PLAIN = frozenset({str, bool, int, type(None)})


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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def now() -> str:
    """Return the time in UTC, e.g. "2026-01-31T08:15:30.125Z"."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """The file of events of one run.

    Args:
        path: the file; it need not exist before the first `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        """
        fields = {"event": event, "time": now(), **plain(content)}
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        self.write(f"{line}\n".encode(), sync=sync)

    def write(self, line: bytes, *, sync: bool) -> None:
        """Append one line, its end included, as it is.

        Raises:
            RunError: another process is writing to the same file.
        """
        file, _ = (self._file, b"") if self._file is not None else self._open()
        while line:
            line = line[os.write(file, line) :]
        if sync:
            os.fsync(file)

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
        _, torn = self._open()
        return self.path.read_bytes().removesuffix(b"\n").rpartition(b"\n")[2], torn

    def _open(self) -> tuple[int, bytes]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise RunError(f"another process is writing to {self.path.parent}") from error
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        os.ftruncate(file, whole)
        self._file = file
        return file, content[whole:]

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
        try:
            stream = self.path.open("rb")
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror or error}") from error
        with stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    event = json.loads(line)
                except ValueError as error:
                    if next(stream, None) is None:  # torn by a power cut, after the file had grown
                        return
                    raise RunError(
                        f"line {number} of {self.path} is damaged",
                        hint="Remove that line to read the others.",
                    ) from error
                yield event
