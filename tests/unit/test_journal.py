"""Durable files: short writes, a full disk, synced folders, and followers that parse each line once."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import pytest

from shoal.common.audit.check import read_chain
from shoal.common.audit.log import AuditLog, MessageEntry
from shoal.common.errors import RunError
from shoal.common.journal import Journal, make_folder, replacing, write_atomically
from shoal.common.privacy.charges import Charges

Append = Callable[[Path, int], object]


def append_to_journal(path: Path, number: int) -> None:
    journal = Journal(path)
    try:
        journal.append("round", {"number": number}, sync=True)
    finally:
        journal.close()


def charge(path: Path, number: int) -> None:
    Charges(path).add({"round": number, "clients": list(range(40))})


def log(path: Path, number: int) -> None:
    journal = AuditLog(path, {"side": "server"})
    try:
        journal.note(MessageEntry("sent", "south", "train", number, 10, "0" * 64))
    finally:
        journal.close()


# Everything that appends durably: a new one is a row.
APPENDERS: dict[str, Append] = {"journal": append_to_journal, "charges": charge, "audit log": log}


@pytest.fixture(params=list(APPENDERS))
def append(request: pytest.FixtureRequest) -> Append:
    return APPENDERS[request.param]


def calls_of(function: Any, action: Callable[[], object]) -> int:
    """Return how often an action calls a function, which is watched and not replaced."""
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        code = getattr(function, "__code__", None)
        if (event == "c_call" and argument is function) or (event == "call" and frame.f_code is code):
            count += 1

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: the write that would is cut short, for real."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then it is an error, EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_takes_a_part_is_continued(
    tmp_path: Path, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:7]))
    path = tmp_path / "file.jsonl"
    for number in (1, 2):
        append(path, number)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [line for line in lines if line.get("event") not in ("begin", "end")]
    assert [line.get("round", line.get("number")) for line in told] == [1, 2]
    assert path.read_bytes().endswith(b"\n")


def test_a_disk_that_fills_up_leaves_no_half_line_before_the_next(tmp_path: Path, append: Append) -> None:
    path = tmp_path / "file.jsonl"
    append(path, 1)
    whole = path.read_bytes()
    with disk_full_at(len(whole) + 20), pytest.raises(OSError, match="too large"):
        append(path, 2)
    assert len(path.read_bytes()) == len(whole) + 20  # a short write did take place
    append(path, 3)
    after = path.read_bytes()
    assert after.startswith(whole)
    assert all(json.loads(line) for line in after.splitlines())


def test_what_a_full_disk_refused_was_not_charged(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    charges = Charges(path)
    charges.add({"round": 1})
    with disk_full_at(path.stat().st_size + 5), pytest.raises(OSError, match="too large"):
        charges.add({"round": 2})
    assert [entry["round"] for entry in charges.entries] == [1]
    charges.add({"round": 3})
    assert [entry["round"] for entry in Charges(path).entries] == [1, 3]


def test_the_audit_chain_holds_after_a_disk_was_full(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    journal = AuditLog(path, {"side": "server"})
    entry = MessageEntry("sent", "south", "train", 1, 10, "0" * 64)
    with disk_full_at(path.stat().st_size + 30), pytest.raises(OSError, match="too large"):
        journal.note(entry)
    journal.note(entry)
    journal.close()
    assert [found["event"] for found in read_chain(path).require_whole().entries] == [
        "begin",
        "message",
        "end",
    ]


def test_a_new_file_is_synced_with_its_folder_and_an_old_one_alone(tmp_path: Path) -> None:
    """Otherwise a power cut takes the file's name, and with it what was charged."""
    path = tmp_path / "file.jsonl"
    assert calls_of(os.fsync, lambda: charge(path, 1)) == 2
    assert calls_of(os.fsync, lambda: charge(path, 2)) == 1


def test_a_file_that_a_crash_left_empty_is_synced_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").touch()
    assert calls_of(os.fsync, lambda: charge(tmp_path / "file.jsonl", 1)) == 2


def test_an_atomic_write_syncs_the_file_and_its_folder(tmp_path: Path) -> None:
    assert calls_of(os.fsync, lambda: write_atomically(tmp_path / "file", "x" * 100_000)) == 2


def test_a_new_folder_is_synced_in_each_that_was_missing(tmp_path: Path) -> None:
    """`runs` and `runs/first` are new: a name in `tmp_path` and one in `runs`."""
    assert calls_of(os.fsync, lambda: make_folder(tmp_path / "runs" / "first")) == 2
    assert (tmp_path / "runs" / "first").is_dir()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "runs" / "first")


def _write_half(path: Path) -> None:
    with replacing(path) as stream:
        stream.write(b"half")
        raise ValueError("half")


def test_an_atomic_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with disk_full_at(10), pytest.raises(OSError, match="too large"):
        write_atomically(path, "new" * 10)
    with pytest.raises(ValueError, match="half"):
        _write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_its_owners_from_the_first_byte(tmp_path: Path) -> None:
    write_atomically(tmp_path / "key", "secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_only_the_journal_syncs_and_appends() -> None:
    """Whatever is durable goes through one module, which does it right; binary records have their own."""
    root = Path(__file__).parents[2]
    found = Counter(
        str(path.relative_to(root))
        for package in ("server", "clients", "common", "simulations")
        for path in (root / package).rglob("*.py")
        for word in ("os.fsync", "os.write(", "os.O_APPEND")
        if word in path.read_text(encoding="utf-8")
    )
    assert set(found) == {"common/journal.py", "clients/state/slot_journal.py"}


def test_the_last_line_is_found_from_the_end(tmp_path: Path) -> None:
    """Lines longer than a block of the search, which is 64 KiB, and a torn one after them."""
    path = tmp_path / "file.jsonl"
    last = b'{"number": 2, "text": "' + b"x" * 200_000 + b'"}'
    path.write_bytes(b'{"number": 1}\n' + last + b"\n" + b"t" * 70_000)
    journal = Journal(path)
    assert journal.take() == (last, b"t" * 70_000)
    journal.close()
    assert path.read_bytes() == b'{"number": 1}\n' + last + b"\n"


@pytest.mark.parametrize("content", [b"", b"torn", b"\n", b"one\n", b"one\ntwo\nthr"])
def test_the_last_line_of_short_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(content)
    whole, _, torn = content.rpartition(b"\n")
    assert Journal(path).take() == (whole.rpartition(b"\n")[2], torn)


def test_a_second_writer_waits_where_it_was_told_to(tmp_path: Path) -> None:
    """A kernel lock belongs to the open file, so two openings of one process stand for two processes."""
    path = tmp_path / "file.jsonl"
    holder = Journal(path)
    holder.write(b'{"round": 1}\n', sync=False)
    with pytest.raises(RunError, match="another process"):
        Journal(path).write(b"{}\n", sync=False)
    waiting = Thread(target=lambda: Charges(path).add({"round": 3}))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    holder.write(b'{"round": 2}\n', sync=False)
    holder.close()
    waiting.join(10)
    assert [entry["round"] for entry in Charges(path).entries] == [1, 2, 3]


def test_a_follower_reads_each_line_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("message", {"text": "first"}, sync=False)
    follower = journal.follow()
    seen = []
    for number in range(20):
        journal.append("round", {"number": number}, sync=False)
        seen += [event.get("number") for _, event in follower.new()]
    assert seen == [None, *range(20)]
    assert follower.lines == 21
    assert follower.offset == (tmp_path / "events.jsonl").stat().st_size
    assert calls_of(json.loads, lambda: list(follower.new())) == 0
    journal.close()


def test_a_follower_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"number": 1}\n{"num')
    follower = Journal(path).follow()
    assert [event["number"] for _, event in follower.new()] == [1]
    with path.open("ab") as stream:
        stream.write(b'ber": 2}\n')
    assert list(follower.new()) == [(14, {"number": 2})]  # the first line has 14 bytes
    assert list(Journal(path).read_at([14, 0])) == [{"number": 2}, {"number": 1}]
