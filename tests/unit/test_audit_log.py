"""The audit log: a chain that shows every change, goes on after a kill, and is compared side by side."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import cli
from shoal.common.audit.check import compare, read_chain
from shoal.common.audit.log import FIRST, AuditLog, MessageEntry, seal
from shoal.common.errors import IntegrityError, RunError
from shoal.common.messages import table
from shoal.common.messages.table import purpose

SERVER = {"side": "server", "clients": ["north", "south"], "run_id": "a"}
CLIENT = {"side": "client", "client": 1, "clients": 2, "run_id": "a"}


def passed(direction: str, payload: bytes, *, peer: str = "south", number: int | None = 1) -> MessageEntry:
    digest = sha256(payload).hexdigest()
    return MessageEntry(direction, peer, "train", number, len(payload), digest)  # type: ignore[arg-type]


def write(path: Path, messages: int = 3) -> list[bytes]:
    log = AuditLog(path, SERVER)
    for number in range(messages):
        log.note(passed("sent", b"%d" % number, number=number))
    log.close()
    return path.read_bytes().splitlines(keepends=True)


def fault(path: Path, content: bytes) -> tuple[int, str] | None:
    path.write_bytes(content)
    found = read_chain(path).fault
    return None if found is None else (found.line, found.what)


def test_each_kind_of_message_has_a_purpose_of_its_own() -> None:
    purposes = [purpose(name, None) for name in table.MESSAGES]
    assert all(purposes)
    assert len(set(purposes)) == len(table.MESSAGES)
    assert purpose(table.TRAIN.name, 3) == "round 3: train the global model on local rows"
    assert purpose("query.who", None) == "unknown message type"


def test_an_entry_reports_who_when_what_and_why(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog(path, SERVER)
    log.note(passed("received", b"weights", number=3))
    log.note(MessageEntry.failed("received", "north", "evaluate", None, "WorkerError: died"))
    log.close()
    begin, first, second, end = (json.loads(line) for line in path.read_text().splitlines())
    assert begin | SERVER == begin
    assert begin["previous"] == FIRST
    assert {k: first[k] for k in ("number", "direction", "peer", "kind", "purpose", "round", "bytes")} == {
        "number": 1,
        "direction": "received",
        "peer": "south",
        "kind": "train",
        "purpose": "round 3: train the global model on local rows",
        "round": 3,
        "bytes": 7,
    }
    assert first["sha256"] == sha256(b"weights").hexdigest()
    assert first["time"].endswith("Z")
    assert (second["error"], second["bytes"], second["round"]) == ("WorkerError: died", 17, None)
    chained = [entry["hash"] for entry in (begin, first, second)]
    assert [entry["previous"] for entry in (first, second, end)] == chained
    # The hash as anybody can compute it: of the line without its last field.
    line = path.read_bytes().splitlines()[1]
    body = line[: line.index(b', "hash"')] + b"}"
    assert first["hash"] == sha256(body).hexdigest()
    chain = read_chain(path)
    assert (chain.fault, chain.root, chain.ended) == (None, end["hash"], True)
    assert len(chain.messages()) == 2


def test_what_was_done_to_a_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = write(path, 5)  # with begin and end: lines 1 to 7
    assert fault(path, b"".join(lines)) is None
    changed = lines[2].replace(b'"south"', b'"north"')
    assert fault(path, b"".join([*lines[:2], changed, *lines[3:]])) == (3, "changed")
    assert fault(path, b"".join([*lines[:2], *lines[4:]])) == (3, "missing")
    assert "entries 2 to 3 are missing" in str(read_chain(path).fault)
    assert fault(path, b"".join(lines[1:])) == (1, "missing")
    assert fault(path, b"".join([*lines[:2], lines[3], lines[2], *lines[4:]])) == (3, "out of order")
    assert fault(path, b"".join([*lines[:3], lines[2], *lines[3:]])) == (4, "out of order")
    assert fault(path, b"".join(lines)[:-40]) == (7, "torn end")
    # A line rewritten with a hash of its own: the next one still follows the line that was there.
    entry = json.loads(lines[2]) | {"peer": "north"}
    forged, _ = seal({k: v for k, v in entry.items() if k != "hash"})
    assert fault(path, b"".join([*lines[:2], forged + b"\n", *lines[3:]])) == (3, "changed")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes], str]:
    path = tmp_path_factory.mktemp("log") / "a.jsonl"
    lines = write(path, 4)
    return path, lines, read_chain(path).root


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0), value=st.integers(1, 255))
def test_any_changed_byte_is_found(written: tuple[Path, list[bytes], str], place: int, value: int) -> None:
    path, lines, _ = written
    content = bytearray(b"".join(lines))
    content[place % len(content)] ^= value  # never the byte that was there
    assert fault(path, bytes(content)) is not None


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_other_selection_of_lines_is_found(
    written: tuple[Path, list[bytes], str], data: st.DataObject
) -> None:
    path, lines, root = written
    chosen = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines) + 2))
    path.write_bytes(b"".join(lines[i] for i in chosen))
    chain = read_chain(path)
    if chosen == list(range(len(chosen))):  # only the end is gone: the chain cannot tell, the root does
        assert chain.fault is None
        if len(chosen) < len(lines):
            with pytest.raises(IntegrityError, match="no entry with the root"):
                chain.since(root)
    else:
        assert chain.fault is not None


def test_an_older_root_shows_that_the_log_was_only_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path)
    root = read_chain(path).root
    log = AuditLog(path, SERVER)
    log.note(passed("sent", b"more"))
    log.close()
    assert read_chain(path).since(root) == 3  # begin, message, end


def test_a_torn_last_line_is_cut_off_and_told_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    content = b"".join(write(path))
    path.write_bytes(content[:-40])
    log = AuditLog(path, SERVER)
    log.close()
    chain = read_chain(path)
    assert chain.fault is None
    # begin, 3 messages, and then the torn end in whose place the next beginning stands
    end = content.splitlines()[-1]
    assert chain.entries[4]["event"] == "begin"
    assert chain.entries[4]["torn_bytes"] == len(end) + 1 - 40


def test_threads_that_log_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog(path, SERVER)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log.note(passed("sent", b"", number=number)), range(400)))
    log.close()
    chain = read_chain(path).require_whole()
    assert sorted(entry["round"] for entry in chain.messages()) == list(range(400))


def test_a_full_disk_leaves_a_chain_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog(path, SERVER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit is an OSError
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))  # a third of a line
        with pytest.raises(OSError, match="File too large"):
            log.note(passed("sent", b"too much"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.note(passed("sent", b"again"))
    log.close()
    chain = read_chain(path).require_whole()
    assert [e["sha256"] for e in chain.messages()] == [sha256(b"again").hexdigest()]


def test_a_log_whose_last_line_was_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    content = b"".join(write(path))
    path.write_bytes(content.replace(b'"event": "end"', b'"event": "eND"'))
    with pytest.raises(IntegrityError, match=r"the last line of .* was changed"):
        AuditLog(path, SERVER)
    path.write_bytes(content)
    held = AuditLog(path, SERVER)
    with pytest.raises(RunError, match="another process is writing"):
        AuditLog(path, SERVER)
    held.close()


WRITER = """
import sys
from pathlib import Path
from shoal.common.audit.log import AuditLog, MessageEntry
log = AuditLog(Path(sys.argv[1]), {"side": "server"})
for number in range(10**6):
    log.note(MessageEntry("sent", "south", "train", number, 1, "0" * 64))
"""


def test_a_killed_writer_leaves_a_chain_that_the_next_goes_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for seen in (1, 2):
        before = path.stat().st_size if path.exists() else 0
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[2])
        end = time.monotonic() + 60
        while not path.exists() or path.stat().st_size < before + 100_000:
            assert writer.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        writer.kill()
        writer.wait()
        path.write_bytes(path.read_bytes()[:-30])  # as if it had been in the middle of a line
        AuditLog(path, SERVER).close()
        chain = read_chain(path)
        assert chain.fault is None
        assert [e["event"] for e in chain.entries].count("begin") == 2 * seen
        rounds = [e["round"] for e in chain.messages()]
        assert rounds[:100] == list(range(100))


def pair(folder: Path) -> tuple[AuditLog, AuditLog]:
    return AuditLog(folder / "server.jsonl", SERVER), AuditLog(folder / "south.jsonl", CLIENT)


def test_two_sides_are_compared(tmp_path: Path) -> None:
    server, client = pair(tmp_path)
    for number in (1, 2):
        task, update = b"task %d" % number, b"update %d" % number
        server.note(passed("sent", task, number=number))
        server.note(passed("sent", task, number=number))  # again, after a broken connection
        server.note(passed("sent", task, peer="north", number=number))
        client.note(passed("received", task, peer="here:9443", number=number))
        client.note(passed("sent", update, peer="here:9443", number=number))
        server.note(passed("received", update, number=number))
    server.close()
    client.close()
    here, there = (read_chain(tmp_path / f"{name}.jsonl") for name in ("server", "south"))
    for found in (compare(here, there), compare(there, here)):
        assert (found.unsent, found.unreceived, found.agreeing) == ([], [], 4)


def test_a_message_that_one_side_lacks_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, client = pair(tmp_path)
    server.note(passed("received", b"never sent"))
    client.note(passed("sent", b"never received", peer="here:9443"))
    server.close()
    client.close()
    found = compare(read_chain(tmp_path / "server.jsonl"), read_chain(tmp_path / "south.jsonl"))
    assert [e["sha256"] for _, e in found.unsent] == [sha256(b"never sent").hexdigest()]
    assert [e["sha256"] for _, e in found.unreceived] == [sha256(b"never received").hexdigest()]
    logs = [str(tmp_path / f"{name}.jsonl") for name in ("server", "south")]
    with pytest.raises(SystemExit) as caught:
        cli.main(["audit", "verify", logs[0], "--against", logs[1]])
    assert caught.value.code == IntegrityError.exit_code
    told = capsys.readouterr()
    assert "received but never sent" in told.out
    assert "2 messages are in one log only" in told.err


def test_logs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    server, client = pair(tmp_path)
    server.close()
    client.close()
    AuditLog(tmp_path / "third.jsonl", CLIENT | {"client": 7}).close()
    here, there, third = (read_chain(tmp_path / f"{name}.jsonl") for name in ("server", "south", "third"))
    with pytest.raises(RunError, match=r"neither .* is the log of a pilot's server"):
        compare(there, there)
    for client in (third, here):
        with pytest.raises(RunError, match="contains no messages of the run in"):
            compare(here, client)


def test_what_a_site_sent_in_other_runs_is_left_aside(tmp_path: Path) -> None:
    server, client = pair(tmp_path)
    server.note(passed("received", b"update"))
    server.close()
    client.note(passed("sent", b"update"))
    client.begin(CLIENT | {"run_id": "b", "client": 0})
    client.note(passed("sent", b"in another run"))
    client.close()
    AuditLog(tmp_path / "south.jsonl", CLIENT).close()  # it was started again, in the first run
    found = compare(read_chain(tmp_path / "server.jsonl"), read_chain(tmp_path / "south.jsonl"))
    assert (found.unsent, found.unreceived, found.agreeing, found.others) == ([], [], 1, 1)


def test_what_was_received_more_often_than_sent_is_reported(tmp_path: Path) -> None:
    """A server that enters an update twice, e.g. to count it twice, has received one that nobody sent."""
    server, client = pair(tmp_path)
    client.note(passed("sent", b"update", peer="here:9443"))
    for _ in range(2):
        server.note(passed("received", b"update"))
    server.close()
    client.close()
    found = compare(read_chain(tmp_path / "server.jsonl"), read_chain(tmp_path / "south.jsonl"))
    assert [entry["sha256"] for _, entry in found.unsent] == [sha256(b"update").hexdigest()]
    assert (found.unreceived, found.agreeing) == ([], 1)


def test_the_command_reports_root_and_first_wrong_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    lines = write(path)
    root = read_chain(path).root

    def verify(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["audit", "verify", str(path), *more])
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    code, out, _ = verify("--root", root)
    assert code == 0
    assert "5 entries, 3 of them messages" in out
    assert f"root {root}" in out
    assert "the given root is the last entry" in out
    assert verify("--root", "0" * 64)[0] == IntegrityError.exit_code
    path.write_bytes(b"".join(lines[:-1]))
    code, _, err = verify()
    assert code == IntegrityError.exit_code
    assert "has no final entry: its process was killed or is still running, or its end was cut off" in err
    assert verify("--unfinished")[0] == 0
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    code, _, err = verify()
    assert code == IntegrityError.exit_code
    assert "line 2: missing: entry 1 is missing" in err
    path.unlink()
    assert verify()[0] == RunError.exit_code
