"""A durable file of charges to a privacy budget; a charge is on disk before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.common.errors import RunError
from shoal.common.journal import Journal


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
            # Held for this one line only: another process may charge the same account.
            journal = Journal(self._path, wait=True)
            try:
                journal.write(f"{json.dumps(entry)}\n".encode(), sync=True)
            finally:
                journal.close()
        self.entries.append(entry)


class Account:
    """The privacy account of one client's rows, over all runs in which it took part.

    Args:
        charges: the file; run: the current run, to which the budget applies.
    """

    def __init__(self, charges: Charges, run: str) -> None:
        self._charges = charges
        self._run = run

    def charge(self, number: int) -> int:
        """Charge a training round durably; return the number of charged rounds of this run."""
        self._charges.add({"run": self._run, "round": number})
        return self.rounds

    @property
    def rounds(self) -> int:
        """Number of charged rounds of this run; a round that was asked for twice counts twice."""
        return sum(entry.get("run") == self._run for entry in self._charges.entries)


def _read(path: Path) -> list[Mapping[str, Any]]:
    """Read the entries without an incomplete last line: `add` had not returned, so nothing was sent."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    entries: list[Mapping[str, Any]] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
            int(entry["round"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"line {number} of {path} is damaged, so the budget spent is unknown",
                hint="restore the file from a copy; a run must not continue without its ledger",
            ) from error
        entries.append(entry)
    return entries
