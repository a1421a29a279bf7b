"""Callbacks: what they are told, what they add to a round, and how they stop a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from shoal.common.config.file import load_scenario
from shoal.common.errors import RunError
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.simulations.callbacks import Audience, Callback, end, start

ROW = RoundRow(1, 2, 2, 20, 0.1, 0.5, {"mae": 0.25}, True, 10, 20, 1.0)
CLIENTS = [ClientRow(1, i, f"c{i}", "train", 10, 0.1, 5, 10, {}) for i in range(2)]


class Folder:
    """Keeps what it is told, as the run folder does."""

    def __init__(self) -> None:
        self.rounds: list[RoundRow] = []
        self.told: list[str] = []

    def on_message(self, text: str) -> None:
        self.told.append(text)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.rounds.append(row)

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        self.told.append("sites")


class Returns(Callback):
    def __init__(self, found: Any) -> None:
        self.found = found
        self.seen: list[str] = []

    def on_client(self, row: ClientRow) -> None:
        self.seen.append(row.name)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> Mapping[str, float] | None:
        self.seen.append(f"round {row.round}")
        return self.found  # type: ignore[no-any-return]


def test_metrics_of_callbacks_reach_all_observers_and_no_row_is_changed() -> None:
    folder, display, callback = Folder(), Folder(), Returns({"extra": 3})
    Audience(folder, [display, callback, Returns(None)]).on_round(ROW, CLIENTS)
    assert folder.rounds == display.rounds
    assert folder.rounds[0].metrics == {"mae": 0.25, "extra": 3.0}
    assert ROW.metrics == {"mae": 0.25}
    assert callback.seen == ["c0", "c1", "round 1"]


def test_messages_and_the_final_test_reach_everybody() -> None:
    folder, other = Folder(), Folder()
    audience = Audience(folder, [other, Callback()])
    audience.on_message("hello")
    audience.on_sites([])
    assert folder.told == other.told == ["hello", "sites"]


@pytest.mark.parametrize("found", [{"a": float("nan")}, {"a": "high"}, {1: 2.0}, [("a", 1.0)], 7.0])
def test_other_results_than_numbers_by_name_are_refused(found: object) -> None:
    with pytest.raises(RunError, match=r"Returns\.on_round returned .* expected finite numbers by name"):
        Audience(Folder(), [Returns(found)]).on_round(ROW, CLIENTS)


def test_a_metric_that_is_there_is_not_overwritten() -> None:
    with pytest.raises(RunError, match='the metric "mae" already exists'):
        Audience(Folder(), [Returns({"mae": 0.0})]).on_round(ROW, CLIENTS)


def test_a_callback_stops_a_run_and_the_next_one_starts_afresh(tmp_path: Path) -> None:
    class Notes(Callback):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def on_start(self, scenario: object, folder: Path) -> None:
            self.notes.append("start")

        def on_end(self, status: str, folder: Path) -> None:
            self.notes.append(status)

    notes, scenario = Notes(), load_scenario("linear")
    audience = Audience(Folder(), [notes])
    assert not audience.enough()
    notes.stop()
    assert audience.enough()
    start([notes, Folder()], scenario, tmp_path)
    assert not audience.enough()
    end([notes, Folder()], "finished", tmp_path)
    assert notes.notes == ["start", "finished"]
