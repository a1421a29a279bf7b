"""An append-only log of messages in which each entry contains the hash of the previous one.

Each line is one JSON object. Its last field, `hash`, is the SHA-256 of the line without that field; its field
`previous` is the `hash` of the previous line. So nobody can change, remove, add or reorder lines without
rewriting all later ones, and anyone who noted the last `hash`, the root, can detect even that. After Haber
and Stornetta, "How to time-stamp a digital document", Journal of Cryptology 1991. The evolving keys of
Schneier and Kelsey, "Secure audit logs to support computer forensics", TISSEC 1999, are not used: a root that
is kept elsewhere serves the same purpose, and there is no key to lose.

When `note` returns, the operating system has the entry, so it survives `kill -9`; `sync` waits for the disk.
A process that is restarted removes an incomplete last line, records that, and continues the chain.
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
FIRST: Final = "0" * 64  # `previous` of the first entry
Direction = Literal["sent", "received"]
_SEAL: Final = re.compile(rb'(\{.*), "hash": "([0-9a-f]{64})"\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class MessageEntry:
    """A message that was sent or received, without its content.

    Attributes:
        direction: as seen by the side that logs.
        peer: the other side: a client's name, or the server's address.
        kind: type of the request, also for its reply.
        round: its round, or `None`.
        bytes: of the payload; sha256: of the payload, in hexadecimal.
        error: the text that was sent instead of a payload, to which `bytes` and `sha256` then refer; or "".
        others: names of other clients that the same reply covers (simulation only).
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
        """Return the entry of an error that was sent instead of a payload."""
        text = error.encode()
        return cls(direction, peer, kind, round_number, len(text), sha256(text).hexdigest(), error)


def seal(fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return a JSON-serialisable entry as a line, without the newline, and its hash."""
    body = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    digest = sha256(body).hexdigest()
    return body[:-1] + f', "hash": "{digest}"}}'.encode(), digest


def unseal(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, including its hash; `None` if the line was changed."""
    found = _SEAL.fullmatch(line)
    if found is None or sha256(found[1] + b"}").hexdigest().encode() != found[2]:
        return None
    try:
        fields = json.loads(line)
    except ValueError:  # the hash matches, but the line is not ours
        return None
    expected = {"number": int, "time": str, "event": str, "previous": str}
    good = isinstance(fields, dict) and all(isinstance(fields.get(k), t) for k, t in expected.items())
    return fields if good else None


class AuditLog:
    """The log of one side; the process holds its lock until `close`.

    Args:
        path: the file; it is created or continued.
        begin: fields of the `begin` entry, e.g. which side logs.

    Raises:
        IntegrityError: the last line was changed, so the chain cannot continue.
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
                f"the last line of {path} was changed, so the log cannot be continued",
                hint=f"check it with `shoal audit verify {path}`, and move the file away to start a new log",
            )
        self._number = 0 if before is None else int(before["number"]) + 1
        self._root = FIRST if before is None else str(before["hash"])
        self.begin({**begin, **({"torn_bytes": len(torn)} if torn else {})})

    @property
    def root(self) -> str:
        """The hash of the last entry, which covers the whole log."""
        return self._root

    def begin(self, about: Mapping[str, Any]) -> None:
        """Log that the following entries belong to another run."""
        self._append("begin", about)
        self.sync()

    def note(self, entry: MessageEntry) -> None:
        """Log a message before it is sent, or before a received one is used.

        Raises:
            OSError: it could not be written, and is not in the log.
        """
        from shoal.common.messages.table import purpose  # imports Flower, which checking a log does not need

        fields = {
            "direction": entry.direction,
            "peer": entry.peer,
            "kind": entry.kind,
            "purpose": purpose(entry.kind, entry.round),
            "round": entry.round,
            "bytes": entry.bytes,
            "sha256": entry.sha256,
        }
        more = {"error": entry.error, "others": entry.others}
        self._append("message", fields | {name: value for name, value in more.items() if value})

    def sync(self) -> None:
        """Wait until all entries are on disk."""
        self._journal.sync()

    def close(self) -> None:
        """Log the normal end of this side, and release the file."""
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
