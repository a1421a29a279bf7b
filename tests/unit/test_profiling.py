"""Phases exclude each other and add up to the wall time; a trace is readable also after a crash."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from shoal.common import profiling
from shoal.common.profiling import move, span, take, take_spans
from shoal.simulations.trace import TraceFile


def test_inner_spans_are_taken_off_the_outer_one() -> None:
    take()
    started = time.perf_counter()
    with span("train"):
        time.sleep(0.02)
        with span("load"):
            time.sleep(0.03)
    time.sleep(0.01)
    found, wall = take(), time.perf_counter() - started
    assert found["train"] >= 0.02
    assert found["load"] >= 0.03
    assert found["other"] >= 0.01
    assert sum(found.values()) == pytest.approx(wall, rel=0.02)  # each moment is charged once
    assert list(found) == [name for name in profiling.PHASES if name in found]


def test_time_can_be_told_apart_later_without_changing_the_sum() -> None:
    take()
    with span("wait"):
        time.sleep(0.02)
        move("wait", {"train": 0.015, "idle": 0.001})
    found = take()
    assert (found["train"], found["idle"]) == (0.015, 0.001)
    assert found["wait"] >= 0.02 - 0.016


def test_a_span_ends_also_when_an_exception_leaves_it() -> None:
    take()
    with pytest.raises(ValueError, match="x"), span("train"):
        raise ValueError("x")
    take()
    time.sleep(0.001)
    assert list(take()) == ["other"]


def test_spans_are_kept_only_for_a_trace(tmp_path: Path) -> None:
    with span("train"):
        pass
    assert take_spans() == []
    with TraceFile(tmp_path / "trace.json") as trace:
        with span("train"):
            time.sleep(0.002)
        trace.on_message("halfway")
        # what a viewer would read if the process died now: a list without its closing bracket
        halfway = json.loads((tmp_path / "trace.json").read_text().rstrip().rstrip(",") + "]")
        assert [e["name"] for e in halfway] == ["thread_name", "train"]
    events = json.loads((tmp_path / "trace.json").read_text())
    train = next(e for e in events if e["name"] == "train")
    assert train["ph"] == "X"
    assert train["dur"] >= 2000  # microseconds
