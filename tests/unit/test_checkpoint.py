"""Checkpoints hold what they were given, bit by bit, and say what is wrong with those that cannot be used."""

from __future__ import annotations

import errno
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import CheckpointError
from shoal.server.checkpoint import Checkpoints


def scenario(*overrides: str) -> Scenario:
    return load_scenario("linear", list(overrides))


def checkpoints(folder: Path, *overrides: str) -> Checkpoints:
    return Checkpoints(folder, scenario(*overrides))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Rounds 1 to 3, of which the last two are kept."""
    files = checkpoints(tmp_path)
    files.save_start({"initial": np.zeros(3)})
    for number in (1, 2, 3):
        files.save(number, {"round": number, "weights": np.full(1000, float(number))})
    return tmp_path


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text()
    | npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, min_side=0)),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(0), inner)
    ),
    max_leaves=10,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        assert type(a) is type(b)
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]
    return type(a) is type(b) and a == b


@given(value=values)
def test_any_state_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    files = checkpoints(tmp_path_factory.mktemp("checkpoints"))
    files.save_start({})
    files.save(1, {"value": value})
    found = files.load()
    assert found is not None
    assert same(value, found[1]["value"])


def test_records_and_special_numbers_come_back(tmp_path: Path) -> None:
    weights = ArrayRecord([np.arange(6, dtype=np.float32).reshape(2, 3), np.array(2, np.int64)])
    client = RecordDict(
        {"w": weights, "m": MetricRecord({"a": 1, "b": [0.1, 2.0]}), "c": ConfigRecord({"s": "x", "y": b"z"})}
    )
    files = checkpoints(tmp_path)
    files.save_start({})
    files.save(1, {"clients": {5: client}, "score": math.nan, "bounds": (-math.inf, math.inf)})
    found = files.load()
    assert found is not None
    assert math.isnan(found[1]["score"])
    assert found[1]["bounds"] == (-math.inf, math.inf)
    back = found[1]["clients"][5]
    assert [list(back), list(back["w"])] == [["w", "m", "c"], list(weights)]
    for ours, theirs in zip(weights.to_numpy_ndarrays(), back["w"].to_numpy_ndarrays(), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert back["m"] == client["m"]
    assert back["c"] == client["c"]


def test_weights_that_are_the_same_memory_are_written_once(tmp_path: Path) -> None:
    array = np.arange(100_000.0)
    files = checkpoints(tmp_path)
    files.save(1, {"last": array, "best": array.view()})
    assert (tmp_path / "round-000001.zip").stat().st_size < 1.1 * array.nbytes


def test_the_two_newest_are_kept(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [
        "round-000002.zip",
        "round-000003.zip",
        "start.zip",
    ]
    found = checkpoints(saved).load()
    assert found is not None
    assert found[1]["round"] == 3


def test_none_saved_is_none(tmp_path: Path) -> None:
    assert checkpoints(tmp_path / "missing").load() is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    """Change one byte of the weights, which only a check sum can tell."""
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_format(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint.json", '{"format": 99, "config": "", "state": null}')


def pickled(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("0.npy", "w") as member:
            np.save(member, np.array([{}], object), allow_pickle=True)
        archive.writestr("checkpoint.json", '{"format": 1, "config": "", "state": {"array": 0}}')


@pytest.mark.parametrize("damage", [cut, flip, empty, other_format, pickled])
def test_a_damaged_one_is_refused_by_name_and_the_one_before_is_used(
    saved: Path, damage: Callable[[Path], None]
) -> None:
    damage(saved / "round-000003.zip")
    files = checkpoints(saved)
    found = files.load()
    assert found is not None
    assert found[1]["round"] == 2
    assert [Path(text.split(":")[0]).name for text in files.refused] == ["round-000003.zip"]


def test_where_none_can_be_used_all_are_named(saved: Path) -> None:
    flip(saved / "round-000002.zip")
    cut(saved / "round-000003.zip")
    with pytest.raises(CheckpointError, match=r"(?s)round-000003.*round-000002"):
        checkpoints(saved).load()


def test_one_of_another_config_names_the_keys(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"training\.learning_rate"):
        checkpoints(saved, "training.learning_rate=0.011").load()


def test_where_a_run_goes_on_may_change(saved: Path) -> None:
    assert checkpoints(saved, "resources.workers=7", "resources.backend=serial").load() is not None


def test_a_write_that_fails_keeps_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints(saved).save(4, {"round": 4})
    monkeypatch.undo()
    found = checkpoints(saved).load()
    assert found is not None
    assert found[1]["round"] == 3
    assert not list(saved.glob(".*"))


def test_a_half_file_of_a_killed_process_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", load_scenario("linear"))
    checkpoints.save(1, {"a": 1})
    half = tmp_path / "checkpoints" / ".round-000002.zip.4711.part"
    half.write_bytes(b"half")
    checkpoints.save(2, {"a": 2})
    assert not half.exists()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
