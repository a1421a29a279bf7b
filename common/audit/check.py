"""Checks audit logs: that a chain is intact, and that two sides logged the same messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shoal.common.audit.log import FIRST, unseal
from shoal.common.errors import IntegrityError, RunError

Entry = Mapping[str, Any]
_OPPOSITE: Final = {"sent": "received", "received": "sent"}


@dataclass(frozen=True, slots=True)
class Fault:
    """The first line that is wrong.

    Attributes:
        line: starting at 1; what: "changed", "missing", "out of order" or "torn end"; text: about it.
    """

    line: int
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The content of an audit log, up to its first fault.

    Attributes:
        path: of the file; entries: the intact ones, in order.
        fault: the fault after them, or `None`.
    """

    path: Path
    entries: Sequence[Entry]
    fault: Fault | None

    @property
    def root(self) -> str:
        """The hash of the last entry."""
        return str(self.entries[-1]["hash"]) if self.entries else FIRST

    @property
    def ended(self) -> bool:
        """Whether the last process ended normally; else it was killed, still runs, or the end is missing."""
        return bool(self.entries) and self.entries[-1]["event"] == "end"

    def messages(self) -> list[Entry]:
        """Return the entries of messages."""
        return [entry for entry in self.entries if entry["event"] == "message"]

    def since(self, root: str) -> int:
        """Return how many entries follow the one with this hash.

        Raises:
            IntegrityError: there is none: the end of the log was cut off, or all of it was rewritten.
        """
        for after, entry in enumerate(reversed(self.entries)):
            if entry["hash"] == root:
                return after
        raise IntegrityError(
            f"{self.path} contains no entry with the root {root}: its end was cut off, or it was rewritten",
            hint="check that this is the root of this log, with all 64 digits",
        )

    def require_whole(self) -> Chain:
        """Return the chain itself if it is intact.

        Raises:
            IntegrityError: a line is wrong, or the last line is incomplete.
        """
        if self.fault is not None:
            raise IntegrityError(f"{self.path}, line {self.fault.line}: {self.fault.what}: {self.fault.text}")
        return self


def read_chain(path: Path) -> Chain:
    """Read a log and find its first fault.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    *lines, rest = content.split(b"\n")
    found = [unseal(line) for line in lines]
    entries: list[Entry] = []
    root = FIRST
    for index, entry in enumerate(found):
        fault = _fault(entry, index, root, found)
        if entry is None or fault is not None:
            return Chain(path, entries, fault)
        entries.append(entry)
        root = str(entry["hash"])
    torn = Fault(len(lines) + 1, "torn end", f"{len(rest)} bytes without the end of a line")
    return Chain(path, entries, torn if rest else None)


def _fault(entry: Entry | None, index: int, root: str, found: Sequence[Entry | None]) -> Fault | None:
    """Return the fault of one line, or `None`; `root` is the hash of the previous line."""
    line = index + 1
    if entry is None:
        return Fault(line, "changed", "its content does not match its hash")
    number = entry["number"]
    if number != index:
        later = any(other is not None and other["number"] == index for other in found[line:])
        if number < index or later:
            return Fault(line, "out of order", f"entry {number} is where entry {index} belongs")
        entries = f"entry {index} is" if number == index + 1 else f"entries {index} to {number - 1} are"
        return Fault(line, "missing", f"{entries} missing, entry {number} is in their place")
    if entry["previous"] != root:
        return Fault(max(1, index), "changed", f"line {line} does not follow it: this line was rewritten")
    return None


@dataclass(frozen=True, slots=True)
class Differences:
    """Messages that only one side logged.

    Attributes:
        unsent: logged as received by one side, more often than as sent by the other.
        unreceived: logged as sent by one side, but not as received by the other.
        agreeing: number of messages that both sides logged.
        others: messages in the client's log of other runs, which were not compared.
    """

    unsent: Sequence[tuple[Chain, Entry]]
    unreceived: Sequence[tuple[Chain, Entry]]
    agreeing: int
    others: int = 0


def compare(one: Chain, other: Chain) -> Differences:
    """Compare a client's log with the server's, in either order.

    A message is identified by direction, kind, round and SHA-256. One that was sent twice, after a broken
    connection, may have been received once; one that was received twice must have been sent twice.

    Raises:
        RunError: they are not the logs of the server and of a client of the same run.
    """
    server, client = (one, other) if _begin(one).get("side") == "server" else (other, one)
    about, there = _of_run(client, _begin(server).get("run_id"))
    name = _client_name(server, client, about)
    here = [entry for entry in server.messages() if entry["peer"] == name]
    lost = [*_not_in(server, here, there), *_not_in(client, there, here)]
    return Differences(
        unsent=[item for item in lost if item[1]["direction"] == "received"],
        unreceived=[item for item in lost if item[1]["direction"] == "sent"],
        agreeing=len({_key(e) for e in here} & {_key(e, turned=True) for e in there}),
        others=len(client.messages()) - len(there),
    )


def _not_in(chain: Chain, entries: Iterable[Entry], others: Iterable[Entry]) -> list[tuple[Chain, Entry]]:
    """Return what one side logged and the other did not; each received message needs one that was sent."""
    left = Counter(_key(entry, turned=True) for entry in others)
    found = []
    for entry in entries:
        key = _key(entry)
        if not left[key]:
            found.append((chain, entry))
        elif entry["direction"] == "received":
            left[key] -= 1
    return found


def _key(entry: Entry, *, turned: bool = False) -> tuple[Any, ...]:
    direction = _OPPOSITE.get(entry["direction"], "") if turned else entry["direction"]
    return direction, entry["kind"], entry["round"], entry["sha256"]


def _begin(chain: Chain) -> Entry:
    return chain.entries[0] if chain.entries else {}


def _of_run(client: Chain, run_id: object) -> tuple[Entry, list[Entry]]:
    """Return the first `begin` entry of a run in a client's log, and the messages of that run."""
    about: Entry = {}
    ours, messages = False, []
    for entry in client.entries:
        if entry["event"] == "begin":
            ours = entry.get("side") == "client" and entry.get("run_id") == run_id
            about = entry if ours and not about else about
        elif entry["event"] == "message" and ours:
            messages.append(entry)
    return about, messages


def _client_name(server: Chain, client: Chain, about: Entry) -> str:
    names, index = _begin(server).get("clients"), about.get("client")
    if not isinstance(names, list) or _begin(server).get("side") != "server":
        raise RunError(f"neither {server.path} nor {client.path} is the log of a pilot's server")
    if not isinstance(index, int) or not 0 <= index < len(names):
        raise RunError(f"{client.path} contains no messages of the run in {server.path}")
    return str(names[index])
