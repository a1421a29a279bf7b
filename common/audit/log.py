"""An append-only log of messages, in which each entry holds the hash of the one before.

A line is one JSON object. Its last field, `hash`, is the SHA-256 of the line without that field; its field
`previous` is the `hash` of the line before. So nobody can change, remove, add or reorder lines without
rewriting all that follow, and whoever has noted the last `hash`, the root, sees even that. After Haber and
Stornetta, "How to time-stamp a digital document", Journal of Cryptology 1991; the evolving keys of Schneier
and Kelsey, "Secure audit logs to support computer forensics", TISSEC 1999, are left out: a root that is kept
elsewhere does what they do, with nothing that could be lost.

What is logged is with the operating system when `note` returns, so it outlives `kill -9`; `sync` waits for
the disk. A process that is started again cuts off a torn last line, says so, and goes on with the chain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

from shoal.common.errors import IntegrityError
from shoal.common.journal import Journal, now

AUDIT_LOG: Final = "audit.jsonl"  # in a run folder: the server's
FIRST: Final = "0" * 64  # what the first entry holds as the hash of the one before
Direction = Literal["sent", "received"]
_SEAL: Final = re.compile(rb'(\{.*), "hash": "([0-9a-f]{64})"\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class MessageEntry:
    """A message that came or went; never what it holds.

    Attributes:
        direction: as the side sees it that logs.
        peer: who is at the other end: a client's name, or the server's address.
        kind: type of the request, also for its reply.
        round: that it belongs to, or `None`.
        bytes: of the payload; sha256: of the payload, in hexadecimal.
        error: the text that was sent instead of a payload, or ""; `bytes` and `sha256` are then of it.
        others: names of further clients that a reply of one process stands for (simulation only).
    """

    direction: Direction
    peer: str
    kind: str
    round: int | None
    bytes: int
    sha256: str
    error: str = ""
    others: tuple[str, ...] = ()

    @classmethod
    def failed(
        cls, direction: Direction, peer: str, kind: str, round_number: int | None, error: str
    ) -> MessageEntry:
        """Return an answer that is an error instead of a payload."""
        text = error.encode()
        return cls(direction, peer, kind, round_number, len(text), sha256(text).hexdigest(), error)


def seal(fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return an entry, of what JSON can hold as it is, as a line without its end, and its hash."""
    body = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    digest = sha256(body).hexdigest()
    return body[:-1] + f', "hash": "{digest}"}}'.encode(), digest


def unseal(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, its hash included; `None` if it is not as it was written."""
    found = _SEAL.fullmatch(line)
    if found is None or sha256(found[1] + b"}").hexdigest().encode() != found[2]:
        return None
    try:
        fields = json.loads(line)
    except ValueError:  # its hash fits, but we did not write it
        return None
    expected = {"number": int, "time": str, "event": str, "previous": str}
    good = isinstance(fields, dict) and all(isinstance(fields.get(k), t) for k, t in expected.items())
    return fields if good else None


class AuditLog:
    """The log of one side; a process holds its lock until `close`.

    Args:
        path: the file; it is made, or gone on with.
        begin: what the entry of this start tells, e.g. which side logs.

    Raises:
        IntegrityError: the last line is not as it was written: the chain cannot go on from it.
        RunError: another process is writing to the same file.
    """

    def __init__(self, path: Path, begin: Mapping[str, Any]) -> None:
        self._journal = Journal(path)
        self._lock = Lock()  # strategies may send from several threads
        last, torn = self._journal.take()
        before = unseal(last) if last else None
        if last and before is None:
            self._journal.close()
            raise IntegrityError(
                f"the last line of {path} was changed: the log cannot go on from it",
                hint=f"look at it with `shoal audit verify {path}`, and move the file away",
            )
        self._number = 0 if before is None else int(before["number"]) + 1
        self._root = FIRST if before is None else str(before["hash"])
        self.begin({**begin, **({"torn_bytes": len(torn)} if torn else {})})

    @property
    def root(self) -> str:
        """The hash of the last entry, which stands for all of the log."""
        return self._root

    def begin(self, about: Mapping[str, Any]) -> None:
        """Log that what follows is of another run than what came before."""
        self._append("begin", about)
        self.sync()

    def note(self, passed: MessageEntry) -> None:
        """Log a message: one to be sent before it is, one that came before it is used.

        Raises:
            OSError: it could not be written; then it is not in the log.
        """
        from shoal.common.messages.table import purpose  # imports Flower, which checking a log does not need

        fields = {
            "direction": passed.direction,
            "peer": passed.peer,
            "kind": passed.kind,
            "purpose": purpose(passed.kind, passed.round),
            "round": passed.round,
            "bytes": passed.bytes,
            "sha256": passed.sha256,
        }
        more = {"error": passed.error, "others": passed.others}
        self._append("message", fields | {name: value for name, value in more.items() if value})

    def sync(self) -> None:
        """Wait until the disk has all that was logged."""
        self._journal.sync()

    def close(self) -> None:
        """Log that this side ends in order, and let go of the file."""
        self._append("end", {})
        self.sync()
        self._journal.close()

    def _append(self, event: str, content: Mapping[str, Any]) -> None:
        with self._lock:
            number, root = self._number, self._root
            line, digest = seal(
                {"number": number, "time": now(), "event": event, **content, "previous": root}
            )
            self._journal.write(line + b"\n", sync=False)
            self._number, self._root = number + 1, digest
