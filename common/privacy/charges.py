"""A durable file of charges to a privacy budget; a charge is on disk before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shoal.common.errors import RunError
from shoal.common.journal import append_line

_KINDS: Final = {"round", "stage", "reset"}  # an entry has one of these keys


class Charges:
    """The charges so far, oldest first.

    Args:
        path: the file; `None` keeps the account in memory only.

    Raises:
        RunError: a line is damaged; continuing would ignore its charge.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.entries: list[Mapping[str, Any]] = [] if path is None or not path.exists() else _read(path)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; it is on disk when this returns.

        Raises:
            OSError: it could not be written, e.g. because the disk is full; then nothing is charged.
        """
        if self._path is not None:
            append_line(self._path, entry)
        self.entries.append(entry)


def _read(path: Path) -> list[Mapping[str, Any]]:
    """Read the entries without an incomplete last line: `add` had not returned, so nothing was sent."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    entries: list[Mapping[str, Any]] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            if not entry.keys() & _KINDS:
                raise KeyError
        except (ValueError, KeyError, AttributeError) as error:
            raise RunError(
                f"line {number} of {path} is damaged, so the budget spent is unknown",
                hint="restore the file from a copy; a run must not continue without its ledger",
            ) from error
        entries.append(entry)
    return entries
