"""What every store of client states promises, checked against a plain dict over random histories."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shoal.clients.state import (
    ClientStateStore,
    DiskStateStore,
    Mark,
    MemoryStateStore,
    StateBatch,
    StateLayout,
)
from shoal.common.errors import CheckpointError, ModelError

STORES: dict[str, Callable[[Path], ClientStateStore]] = {
    "memory": lambda folder: MemoryStateStore(),
    "disk": lambda folder: DiskStateStore(folder / "states"),
}
CLIENTS = st.lists(st.integers(0, 12), max_size=8, unique=True).map(sorted)


def batch_of(clients: list[int], number: float) -> StateBatch:
    """States that differ from client to client and from `number` to `number`."""
    step = np.array(clients, np.float64) / 100 + number
    control = step[:, None, None].astype(np.float32) * np.ones((2, 3), np.float32)
    return StateBatch(np.array(clients, np.int64), {"control": control, "age": step})


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClientStateStore]:
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


def ages(store: ClientStateStore, clients: list[int]) -> dict[int, float]:
    found = store.read(clients)
    return dict(zip(found.clients.tolist(), found.arrays["age"].tolist(), strict=True))


@dataclass
class Past:
    mark: Mark
    states: dict[int, float]


class Histories(RuleBasedStateMachine):
    """Any order of writes, marks, restores and releases; a state in the model is one number a client."""

    name = ""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="shoal-")
        self.store = STORES[self.name](Path(self.folder.name))
        self.now: dict[int, float] = {}
        self.kept = [Past(self.store.mark(), {})]
        self.gone: list[Mark] = []
        self.number = 0

    @rule(clients=CLIENTS)
    def write(self, clients: list[int]) -> None:
        self.number += 1
        batch = batch_of(clients, self.number)
        self.store.write(batch)
        self.now |= dict(zip(clients, batch.arrays["age"].tolist(), strict=True))

    @rule(clients=st.lists(st.integers(0, 20), max_size=20))
    def read(self, clients: list[int]) -> None:
        found = self.store.read(clients)
        expected = sorted({client for client in clients if client in self.now})
        assert found.clients.tolist() == expected
        if self.number and found.arrays:
            np.testing.assert_array_equal(found.arrays["age"], [self.now[client] for client in expected])
            filled = found.arrays["age"].astype(np.float32)[:, None, None] * np.ones((2, 3), np.float32)
            np.testing.assert_array_equal(found.arrays["control"], filled)
            assert found.arrays["control"].dtype == np.float32
            found.arrays["age"][...] = -1  # the caller's own: the store must not see it

    @rule()
    def mark(self) -> None:
        mark = self.store.mark()
        assert Mark.from_json(mark.to_json()) == mark
        if mark != self.kept[-1].mark:
            assert mark.position > self.kept[-1].mark.position
            self.kept.append(Past(mark, dict(self.now)))
        assert self.kept[-1].states == self.now

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.kept) - 1))
        self.store.restore(self.kept[at].mark)
        self.gone += [past.mark for past in self.kept[at + 1 :]]
        self.kept = self.kept[: at + 1]
        self.now = dict(self.kept[at].states)
        self.read(list(range(20)))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.kept) - 1))
        self.store.release(self.kept[at].mark)
        self.gone += [past.mark for past in self.kept[:at]]
        self.kept = self.kept[at:]

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def restore_what_is_gone(self, data: st.DataObject) -> None:
        mark = data.draw(st.sampled_from(self.gone))
        with pytest.raises(CheckpointError):
            self.store.restore(mark)
        self.read(list(range(20)))

    @precondition(lambda self: self.name == "disk")
    @rule()
    def start_anew(self) -> None:
        """As after a crash: the states of the last mark are there."""
        self.store.close()
        self.store = STORES[self.name](Path(self.folder.name))
        self.now = dict(self.kept[-1].states)
        self.gone = []  # what was released may be refused now, or restored as it was
        assert self.store.mark() == self.kept[-1].mark
        self.read(list(range(20)))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


@pytest.mark.parametrize("name", STORES)
def test_any_history_equals_that_of_a_dict(name: str) -> None:
    machine = type(name, (Histories,), {"name": name})
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
    machine.TestCase("runTest").runTest()


def test_layout_is_that_of_the_first_write(store: ClientStateStore) -> None:
    store.write(batch_of([1, 2], 1))
    other = StateBatch(np.array([3]), {"control": np.zeros((1, 2, 4), np.float32), "age": np.zeros(1)})
    with pytest.raises(
        ModelError, match=r'"control" is float32 of shape \(2, 4\); expected float32 of shape \(2, 3\)'
    ):
        store.write(other)
    with pytest.raises(ModelError, match='"age" is absent'):
        store.write(StateBatch(np.array([3]), {"control": np.zeros((1, 2, 3), np.float32)}))
    assert ages(store, [1, 2, 3]) == {1: 1.01, 2: 1.02}


def test_a_write_keeps_no_reference_and_changes_nothing(store: ClientStateStore) -> None:
    batch = batch_of([0, 5], 2)
    store.write(batch)
    assert batch.arrays["age"].tolist() == [2.0, 2.05]
    batch.arrays["age"][...] = 0
    assert ages(store, [0, 5]) == {0: 2.0, 5: 2.05}


def test_a_mark_without_a_write_is_the_same(store: ClientStateStore) -> None:
    store.write(batch_of([0], 1))
    assert store.mark() == store.mark()


def test_restoring_makes_the_marks_behind_it_foreign(store: ClientStateStore) -> None:
    store.write(batch_of([0], 1))
    first = store.mark()
    store.write(batch_of([0], 2))
    abandoned = store.mark()
    store.restore(first)
    store.write(batch_of([0], 3))
    store.mark()  # at the same position as `abandoned`
    with pytest.raises(CheckpointError):
        store.restore(abandoned)
    assert ages(store, [0]) == {0: 3.0}


def test_restoring_gives_space_back(store: ClientStateStore) -> None:
    start = store.mark()
    sizes = []
    for number in range(10):
        store.write(batch_of(list(range(50)), number))
        sizes.append(store.bytes_used)
        store.restore(start)
    assert sizes == sizes[:1] * 10


def test_numbers_and_shapes_of_every_kind(store: ClientStateStore) -> None:
    kinds = {
        "bool": np.array([[True], [False]]),
        "int8": np.array([[[1, 2]], [[3, 4]]], np.int8),
        "float16": np.array([1.5, 2.5], np.float16),
        "complex64": np.array([[1j, 2], [3, 4j]], np.complex64),
        "empty": np.zeros((2, 0, 3)),
        "turned": np.arange(12.0).reshape(3, 2, 2).T,
    }
    store.write(StateBatch(np.array([4, 1_000_000]), kinds))
    found = store.read([1_000_000, 4, 7])
    for name, expected in kinds.items():
        assert found.arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(found.arrays[name], expected)


def test_a_batch_is_checked() -> None:
    with pytest.raises(ValueError, match="strictly ascending"):
        batch_of([2, 2], 1)
    with pytest.raises(ValueError, match="from 0 to"):
        batch_of([-1], 1)
    with pytest.raises(ValueError, match="expected 1 rows"):
        StateBatch(np.array([1]), {"age": np.zeros(2)})


def test_a_layout_is_made_of_numbers() -> None:
    with pytest.raises(ModelError, match="at least one number"):
        StateLayout.of({})
    with pytest.raises(ModelError, match="is of type object"):
        StateLayout.of({"name": np.array(["x"], object)})
    layout = StateLayout.of({"b": np.zeros((2, 3), np.float32), "a": np.zeros(())})
    assert layout.bytes_per_client == 2 * 3 * 4 + 8
    assert StateLayout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize("fields", [{}, {"position": 1}, {"position": -1, "checksum": 0}, {"position": "1"}])
def test_what_is_no_mark_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="is not a mark"):
        Mark.from_json(fields)
