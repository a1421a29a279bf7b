"""A file of what has been charged to a privacy budget, on the disk before anything can leave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.common.errors import RunError
from shoal.common.journal import Journal


class Charges:
    """What has been charged so far, oldest first.

    Args:
        path: the file; `None` keeps the account in memory only.

    Raises:
        RunError: a line of it is damaged: one must not go on as if it counted nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.entries: list[Mapping[str, Any]] = [] if path is None or not path.exists() else _read(path)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; it is on the disk when this returns.

        Raises:
            OSError: it could not be written, e.g. because the disk is full; then nothing is charged.
        """
        if self._path is not None:
            # Held for this one line only: another process may charge the same account.
            journal = Journal(self._path, wait=True)
            try:
                journal.write(f"{json.dumps(entry)}\n".encode(), sync=True)
            finally:
                journal.close()
        self.entries.append(entry)


class Account:
    """What the rows of one client have been used for, over the runs that it took part in.

    Args:
        charges: the file; run: the run that it takes part in now, of which alone there is a budget.
    """

    def __init__(self, charges: Charges, run: str) -> None:
        self._charges = charges
        self._run = run

    def charge(self, number: int) -> int:
        """Charge a round of training, durably; return how many of this run have been."""
        self._charges.add({"run": self._run, "round": number})
        return self.rounds

    @property
    def rounds(self) -> int:
        """Rounds of this run that have been charged, also those that were asked for twice."""
        return sum(entry.get("run") == self._run for entry in self._charges.entries)


def _read(path: Path) -> list[Mapping[str, Any]]:
    """Read the entries without a torn last line: `add` had not returned, so nothing has left."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    entries: list[Mapping[str, Any]] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            int(entry["round"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"line {number} of {path} is damaged, so what has been spent cannot be told",
                hint="put it back from a copy; a run must not go on without its ledger",
            ) from error
        entries.append(entry)
    return entries
