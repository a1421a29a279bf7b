"""The store of client states on disk: crashes, damage, a full disk, other processes, and its size."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.clients.state import DiskStateStore, Mark, StateBatch, StateLayout
from shoal.common.errors import CheckpointError, ModelError, RunError, StorageError

WIDTH = 100  # numbers a state


def batch_of(clients: list[int], number: float) -> StateBatch:
    states = np.full((len(clients), WIDTH), number) + np.array(clients)[:, None] / 1000
    return StateBatch(np.array(clients, np.int64), {"control": states})


def states_in(store: DiskStateStore) -> dict[int, float]:
    found = store.read(range(100))
    assert not found.arrays or (found.arrays["control"] == found.arrays["control"][:, :1]).all()
    first = found.arrays["control"][:, 0].tolist() if found.arrays else []
    return dict(zip(found.clients.tolist(), first, strict=True))


def history(folder: Path) -> list[tuple[Mark, dict[int, float]]]:
    """Write a store whose slots are used again; return the four marks of seven that are still wanted."""
    store = DiskStateStore(folder)
    marks = []
    for number in range(7):
        store.write(batch_of([number % 3, 3, 4 + number], number))
        marks.append((store.mark(), states_in(store)))
        if number == 4:
            store.release(marks[3][0])
    store.write(batch_of([0, 1, 50], 99))
    store.close()
    return marks[3:]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Mark, dict[int, float]]]]:
    folder = tmp_path_factory.mktemp("written") / "states"
    return folder, history(folder)


def check_damaged(folder: Path, marks: list[tuple[Mark, dict[int, float]]]) -> None:
    """Each mark is restored exactly or refused, and so are the states that a new start finds by itself."""
    known = [{}, *(states for _, states in marks)]
    for mark, states in reversed(marks):
        try:
            store = DiskStateStore(folder)
        except CheckpointError:
            continue
        try:
            # The marks before the first of `marks` were released: their states may be there or be refused.
            if store.mark().position in {0, *(mark.position for mark, _ in marks)}:
                assert states_in(store) in known
            store.restore(mark)
            assert states_in(store) == states
        except CheckpointError:
            continue
        finally:
            store.close()


def test_every_mark_of_an_undamaged_store_is_restored(
    written: tuple[Path, list[tuple[Mark, dict[int, float]]]], tmp_path: Path
) -> None:
    folder, marks = written
    shutil.copytree(folder, tmp_path / "states")
    for mark, states in reversed(marks):
        store = DiskStateStore(tmp_path / "states")
        assert store.mark().position >= mark.position
        store.restore(mark)
        assert states_in(store) == states
        store.close()


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_torn_and_damaged_files_never_give_wrong_states(
    written: tuple[Path, list[tuple[Mark, dict[int, float]]]], data: st.DataObject
) -> None:
    folder, marks = written
    with tempfile.TemporaryDirectory(prefix="shoal-") as there:
        copy = Path(there) / "states"
        shutil.copytree(folder, copy)
        for name in ("journal.bin", "states.bin"):
            content = bytearray((copy / name).read_bytes())
            length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))), label=name)
            del content[length:]
            for at in data.draw(st.lists(st.integers(0, length - 1), max_size=2)) if length else []:
                content[at] ^= data.draw(st.integers(1, 255))
            (copy / name).write_bytes(content)
        check_damaged(copy, marks)


def test_each_byte_of_the_journal_counts(
    written: tuple[Path, list[tuple[Mark, dict[int, float]]]], tmp_path: Path
) -> None:
    folder, marks = written
    content = (folder / "journal.bin").read_bytes()
    last, states = marks[-1]
    marked = content.index(b"\n") + 1 + 20 * last.position  # an entry has 8 + 8 + 4 bytes
    shutil.copytree(folder, tmp_path / "states")
    for at in range(0, marked, 7):
        (tmp_path / "states" / "journal.bin").write_bytes(
            content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        )
        try:
            store = DiskStateStore(tmp_path / "states")
        except CheckpointError:  # as in all of the first line
            continue
        with closing(store):
            assert store.mark().position < last.position
            with pytest.raises(CheckpointError):
                store.restore(last)
    (tmp_path / "states" / "journal.bin").write_bytes(content[:marked])
    store = DiskStateStore(tmp_path / "states")
    store.restore(last)
    assert states_in(store) == states
    store.close()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from shoal.clients.state import DiskStateStore, StateBatch
store = DiskStateStore(Path(sys.argv[1]))
rng = np.random.default_rng(0)
for number in range(100_000):
    clients = np.sort(rng.choice(100, 20, replace=False))
    states = np.full((20, 20_000), float(number)) + clients[:, None] / 1000
    store.write(StateBatch(clients, {"control": states}))
    mark = store.mark()
    print(number, mark.position, mark.checksum, flush=True)  # in the place of a checkpoint
    store.release(mark)
"""


def states_at(number: int) -> dict[int, float]:
    """What WRITER has written up to and with that round."""
    rng = np.random.default_rng(0)
    states: dict[int, float] = {}
    for earlier in range(number + 1):
        for client in np.sort(rng.choice(100, 20, replace=False)).tolist():
            states[client] = earlier + client / 1000
    return states


@pytest.mark.parametrize("rounds", [1, 4, 11])
def test_kill_9_loses_at_most_what_was_not_marked(tmp_path: Path, rounds: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "states")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(rounds)]
        with pytest.raises(RunError, match="another process is using"):
            DiskStateStore(tmp_path / "states")
        process.send_signal(signal.SIGKILL)
        lines += [line.split() for line in process.stdout if line.endswith("\n")]
    number, position, checksum = map(int, lines[-1])
    store = DiskStateStore(tmp_path / "states")
    # Killed between its last mark and the line that tells of it, it may be one round further.
    assert states_in_wide(store) in (states_at(number), states_at(number + 1))
    store.restore(Mark(position, checksum))
    assert states_in_wide(store) == states_at(number)
    store.write(StateBatch(np.array([7]), {"control": np.zeros((1, 20_000))}))
    assert states_in_wide(store) == states_at(number) | {7: 0.0}
    store.close()


def states_in_wide(store: DiskStateStore) -> dict[int, float]:
    found = store.read(range(100))
    assert (found.arrays["control"] == found.arrays["control"][:, :1]).all()
    return dict(zip(found.clients.tolist(), found.arrays["control"][:, 0].tolist(), strict=True))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to make any file larger than that, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 799, 800, 1700])
def test_a_full_disk_is_an_error_and_changes_no_state(tmp_path: Path, room: int) -> None:
    store = DiskStateStore(tmp_path / "states")
    store.write(batch_of([0, 1, 2], 1))
    before, states = store.mark(), states_in(store)
    with largest_file(3 * 8 * WIDTH + room), pytest.raises(StorageError, match="cannot write client states"):
        store.write(batch_of([0, 1, 5], 2))
    assert states_in(store) == states
    assert store.mark() == before
    store.write(batch_of([0, 5], 3))  # there is room again
    after, later = store.mark(), states_in(store)
    assert later == states | {0: 3.0, 5: 3.005}
    store.restore(before)
    assert states_in(store) == states
    store.close()
    assert after != before


def test_a_full_disk_at_the_journal(tmp_path: Path) -> None:
    layout = StateLayout.of({"tiny": np.zeros((), np.int8)})  # so that the journal is the longer file
    store = DiskStateStore(tmp_path / "states", layout)
    clients = np.arange(100)
    store.write(StateBatch(clients, {"tiny": np.ones(100, np.int8)}))
    mark = store.mark()
    length = (tmp_path / "states" / "journal.bin").stat().st_size
    with largest_file(length + 30), pytest.raises(StorageError):
        store.write(StateBatch(clients, {"tiny": np.full(100, 2, np.int8)}))
    assert (store.read(clients.tolist()).arrays["tiny"] == 1).all()
    store.write(StateBatch(clients[:1], {"tiny": np.full(1, 3, np.int8)}))
    with largest_file(length + 30), pytest.raises(StorageError):
        store.mark()
    with pytest.raises(StorageError, match="could not be made durable before"):
        store.write(StateBatch(clients, {"tiny": np.full(100, 4, np.int8)}))
    store.close()
    store = DiskStateStore(tmp_path / "states")
    assert store.mark() == mark
    store.restore(mark)
    assert (store.read(clients.tolist()).arrays["tiny"] == 1).all()
    store.close()


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    history(tmp_path / "states")
    assert stat.S_IMODE((tmp_path / "states").stat().st_mode) == 0o700
    for path in (tmp_path / "states").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_store_on_the_folder_is_refused(tmp_path: Path) -> None:
    store = DiskStateStore(tmp_path / "states")
    with pytest.raises(RunError, match="another process is using the client states"):
        DiskStateStore(tmp_path / "states")
    store.close()
    DiskStateStore(tmp_path / "states").close()


def test_another_layout_and_another_file_are_refused(tmp_path: Path) -> None:
    history(tmp_path / "states")
    with pytest.raises(ModelError, match=r'"control" is float32 of shape \(7,\); expected float64'):
        DiskStateStore(tmp_path / "states", StateLayout.of({"control": np.zeros(7, np.float32)}))
    DiskStateStore(tmp_path / "states", StateLayout.of({"control": np.zeros(WIDTH)})).close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal.bin").write_text('{"event": "started"}\n')
    with pytest.raises(CheckpointError, match="not a journal of client states"):
        DiskStateStore(tmp_path / "other")


def test_a_mark_of_another_store_is_refused(tmp_path: Path) -> None:
    history(tmp_path / "one")
    other = DiskStateStore(tmp_path / "other")
    other.write(batch_of([1], 5))
    foreign = other.mark()
    store = DiskStateStore(tmp_path / "one")
    for mark in (foreign, Mark(10_000, 1), Mark(0, 1)):
        with pytest.raises(CheckpointError, match="does not hold the client states"):
            store.restore(mark)
    with pytest.raises(CheckpointError, match="has no mark"):
        store.release(Mark(10_000, 1))
    for each in (store, other):
        each.close()


def test_space_is_used_again_and_a_mark_costs_what_its_cohort_costs(tmp_path: Path) -> None:
    store = DiskStateStore(tmp_path / "states")
    everyone, width = 10_000, 4
    store.write(StateBatch(np.arange(everyone), {"control": np.zeros((everyone, width))}))
    marks, rng = [store.mark()], np.random.default_rng(0)
    journal, states = tmp_path / "states" / "journal.bin", tmp_path / "states" / "states.bin"
    for _ in range(20):
        length = journal.stat().st_size
        cohort = np.sort(rng.choice(everyone, 50, replace=False))
        store.write(StateBatch(cohort, {"control": rng.standard_normal((50, width))}))
        marks.append(store.mark())
        store.release(marks[max(0, len(marks) - 2)])
        # 50 entries and the mark, of 20 bytes; nothing for the 9,950 others.
        assert journal.stat().st_size - length == 51 * 20
    # Each client's state once, and 50 a round for the mark before last and for the round being written.
    assert states.stat().st_size <= (everyone + 2 * 50) * width * 8
    assert store.bytes_used == states.stat().st_size + journal.stat().st_size
    store.close()


def test_writes_between_marks_take_no_more_space(tmp_path: Path) -> None:
    store = DiskStateStore(tmp_path / "states")
    for number in range(10):
        store.write(batch_of([0, 1], number))
    # Two slots that are current, and two to write the next states to: no mark needs any other.
    assert (tmp_path / "states" / "states.bin").stat().st_size == 4 * WIDTH * 8
    store.close()


def test_what_was_free_is_free_after_a_new_start(tmp_path: Path) -> None:
    store = DiskStateStore(tmp_path / "states")
    for number in range(3):
        store.write(batch_of([0, 1], number))
        mark = store.mark()
        store.release(mark)
    size = (tmp_path / "states" / "states.bin").stat().st_size
    for number in range(5):
        store.close()
        store = DiskStateStore(tmp_path / "states")
        store.restore(mark)
        store.release(mark)
        store.write(batch_of([0, 1], number))
        mark = store.mark()
    assert (tmp_path / "states" / "states.bin").stat().st_size == size
    store.close()


def test_a_state_replaced_right_after_the_oldest_mark_is_kept_over_a_new_start(tmp_path: Path) -> None:
    store = DiskStateStore(tmp_path / "states")
    store.write(batch_of([0], 1))
    oldest = store.mark()
    store.release(oldest)
    store.write(batch_of([0], 2))  # the first entry after `oldest`
    store.mark()
    store.close()
    store = DiskStateStore(tmp_path / "states")
    store.write(batch_of([1, 2, 3], 3))
    store.restore(oldest)
    assert states_in(store) == {0: 1.0}
    store.close()


def test_the_first_write_after_a_new_start_cuts_off_what_was_not_marked(tmp_path: Path) -> None:
    history(tmp_path / "states")
    journal = tmp_path / "states" / "journal.bin"
    store = DiskStateStore(tmp_path / "states")
    before, mark = journal.stat().st_size, store.mark()
    store.write(batch_of([1], 5))
    # Three entries were not marked; one takes their place.
    assert journal.stat().st_size == before - 2 * 20
    assert store.mark().position == mark.position + 2
    store.close()


def test_no_descriptor_is_left_open_by_a_refusal(tmp_path: Path) -> None:
    history(tmp_path / "states")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelError):
        DiskStateStore(tmp_path / "states", StateLayout.of({"control": np.zeros(7)}))
    assert len(os.listdir("/proc/self/fd")) == before
