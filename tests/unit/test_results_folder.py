from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from shoal.common.errors import RunError
from shoal.common.events import ClientRow, Interval, RoundRow, SiteRow
from shoal.common.journal import Journal, plain, write_atomically
from shoal.simulations.report import write_report
from shoal.simulations.results import RunFolder, list_folders
from shoal.simulations.results.environment import _git

_SPEC = importlib.util.spec_from_file_location("example_run", Path(__file__).with_name("example_run.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)


def round_row(number: int, **changes: Any) -> RoundRow:
    row = RoundRow(
        round=number,
        cohort=2,
        succeeded=2,
        examples=30,
        learning_rate=0.1,
        train_loss=0.5,
        metrics={"auc": 0.8 + number / 100},
        best=True,
        bytes_up=10,
        bytes_down=20,
        seconds=1.5,
        phases={"train": 1.0, "other": 0.5},
    )
    return dataclasses.replace(row, **changes)


def client_row(number: int, client: int = 0, **changes: Any) -> ClientRow:
    row = ClientRow(number, client, f"site {client}", "train", 15, 0.25, 5, 10, {"loss": 0.4})
    return dataclasses.replace(row, **changes)


def same(one: Any, two: Any) -> bool:
    """Whether two rows are equal, with NaN equal to NaN."""
    return json.dumps(plain(one), sort_keys=True) == json.dumps(plain(two), sort_keys=True)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(example.scenario(tmp_path))


def test_a_new_run_has_its_config_and_environment(run: RunFolder, tmp_path: Path) -> None:
    assert run.name.startswith("medical-thyroid-20")
    assert (run.path / "config.toml").is_file()
    assert RunFolder.open(run.path).scenario() == example.scenario(tmp_path)
    environment = json.loads((run.path / "environment.json").read_text())
    # These keys and no others: no host name, no user name, no path.
    assert set(environment) == {"started", "seed", "versions", "machine", "git"}
    assert set(environment["machine"]) == {"cpu", "cores", "memory_bytes", "os", "architecture"}
    assert environment["seed"] == 1
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["started"].endswith("Z")


def test_the_commit_is_that_of_the_checkout(tmp_path: Path) -> None:
    assert _git(tmp_path) is None  # no checkout
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    found = _git(tmp_path)
    assert found is not None
    assert len(found["commit"]) == 40
    assert found["changed"] is False


def test_two_runs_of_the_same_second_get_two_folders(tmp_path: Path) -> None:
    runs = [RunFolder.create(example.scenario(tmp_path)) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert {run.name for run in list_folders(tmp_path)} == {run.name for run in runs}


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot create the folder"):
        RunFolder.create(example.scenario(tmp_path / "file"))


def test_rows_come_back_as_written(run: RunFolder) -> None:
    rows = [
        round_row(0, train_loss=math.nan, cohort=0, metrics={}),
        round_row(1, examples=np.int64(7), metrics={"auc": np.float32(0.5)}),
        round_row(2, train_loss=math.inf, best=False),
    ]
    clients = [
        client_row(1, 0, name="中文医院", metrics={"loss": math.nan}),
        client_row(1, 1, error="lost", metrics={}),
    ]
    for row in rows:
        run.on_round(row, clients if row.round == 1 else [])
    again = RunFolder.open(run.path)
    assert same(again.round_rows(), rows)
    assert again.round_rows()[2].train_loss == math.inf
    assert same(again.client_rows(), clients)


def test_sites_come_back_as_written(run: RunFolder) -> None:
    interval = Interval(0.9, 0.8, math.nan)
    rows = [SiteRow(0, "SVI", 10, 4, -1, {"federated": {"auc": interval}, "local": {"auc": interval}})]
    run.on_sites(rows)
    assert same(RunFolder.open(run.path).sites(), rows)


def test_columns_of_the_tables(run: RunFolder) -> None:
    run.on_round(round_row(0, metrics={}, phases={}), [])
    run.on_round(round_row(1, train_loss=math.nan), [client_row(1), client_row(1, 1, metrics={"mae": 2.0})])
    run.on_sites([SiteRow(0, "SVI", 10, 4, 3, {"federated": {"auc": Interval(0.9, 0.8, 1.0)}})])
    run.finish("finished", {})
    write_report(run)
    rounds = pq.read_table(run.path / "rounds.parquet")
    assert rounds.schema == run.rounds().schema
    assert same(rounds.to_pylist(), run.rounds().to_pylist())
    assert rounds["metric_auc"].to_pylist() == [None, 0.81]  # null: not evaluated
    assert math.isnan(rounds["train_loss"].to_pylist()[1])  # NaN: evaluated, not a number
    assert rounds["seconds_train"].to_pylist() == [None, 1.0]
    clients = pq.read_table(run.path / "clients.parquet")
    assert clients["phase"].to_pylist() == ["train", "train"]
    assert clients["metric_loss"].to_pylist() == [0.4, None]
    assert clients["metric_mae"].to_pylist() == [None, 2.0]
    sites = pq.read_table(run.path / "sites.parquet").to_pylist()
    place = {"client": 0, "name": "SVI", "train_rows": 10, "test_rows": 4, "positives": 3}
    result = {"model": "federated", "metric": "auc", "value": 0.9, "low": 0.8, "high": 1.0}
    assert sites == [{**place, **result}]


def test_summary_holds_the_totals_and_what_the_caller_adds(run: RunFolder) -> None:
    run.on_round(round_row(0, best=True, bytes_up=1, bytes_down=2), [])
    run.on_round(round_row(1, best=True), [])
    run.on_round(round_row(2, best=False), [])
    run.finish("stopped early", {"closed_form": {"slope": {"learnt": 3.001, "exact": 3.0}}})
    write_report(run)
    summary = run.summary()
    assert summary["status"] == "stopped early"
    assert (summary["rounds"], summary["best_round"]) == (2, 1)
    assert (summary["bytes_up"], summary["bytes_down"]) == (21, 42)
    assert summary["seconds"] == pytest.approx(4.5)
    assert summary["closed_form"]["slope"]["exact"] == 3.0
    assert run.status() == "stopped early"


def test_a_run_that_ends_before_its_first_round_leaves_a_report(run: RunFolder) -> None:
    run.finish("failed", {"error": "DataError: no rows"})
    write_report(run)
    assert run.rounds().num_rows == run.clients().num_rows == len(run.sites()) == 0
    assert "DataError: no rows" in (run.path / "report.html").read_text()


def test_a_torn_last_line_is_left_out_and_cut_off(run: RunFolder) -> None:
    run.on_round(round_row(1), [])
    run.close()
    path = run.path / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "round", "row": {"rou')
    again = RunFolder.open(run.path)
    assert [row.round for row in again.round_rows()] == [1]
    again.on_round(round_row(2), [])
    assert [row.round for row in again.round_rows()] == [1, 2]
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_line_of_zeros_at_the_end_is_torn_too(run: RunFolder) -> None:
    # What some file systems leave after a power cut: the length was written, the content was not.
    run.on_round(round_row(1), [])
    with (run.path / "events.jsonl").open("ab") as stream:
        stream.write(b"\0\0\0\n")
    assert [row.round for row in run.round_rows()] == [1]


def test_a_damaged_line_in_the_middle_is_named(run: RunFolder) -> None:
    run.on_round(round_row(1), [])
    path = run.path / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{broken\n", lines[1]]))
    with pytest.raises(RunError, match=r"line 2 of .* is damaged"):
        run.round_rows()


def test_a_round_written_again_replaces_the_first_and_all_since(run: RunFolder) -> None:
    for number, loss in ((1, 0.5), (2, 0.4), (3, 0.3), (2, 0.45)):
        run.on_round(round_row(number, train_loss=loss), [client_row(number, seconds=loss)])
    assert [(row.round, row.train_loss) for row in run.round_rows()] == [(1, 0.5), (2, 0.45)]
    assert [row.seconds for row in run.client_rows()] == [0.5, 0.45]


def test_only_one_writer(run: RunFolder) -> None:
    run.on_message("first")
    with pytest.raises(RunError, match="another process"):
        RunFolder.open(run.path).on_message("second")
    run.close()
    other = RunFolder.open(run.path)
    other.on_message("second")
    assert [text for _, text in other.messages()] == ["first", "second"]


def test_a_reader_may_look_while_the_run_writes(run: RunFolder) -> None:
    run.on_round(round_row(1), [])
    reader = RunFolder.open(run.path)
    assert reader.status() == "running"
    run.on_round(round_row(2), [])
    assert len(reader.round_rows()) == 2


_WRITER = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("example_run", sys.argv[1])
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from shoal.simulations.results import RunFolder
run = RunFolder.create(example.scenario(Path(sys.argv[2])))
example.tell_rounds(run, example.make_sites(), 4)
print(run.path, flush=True)
time.sleep(600)
"""


def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    helper = str(Path(__file__).with_name("example_run.py"))
    command = [sys.executable, "-c", _WRITER, helper, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        run = RunFolder.open(path)
        assert run.status() == "running"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert run.status() == "killed"
    # Rounds 0 to 4 of five sites; evaluation in each, training in all but round 0.
    assert [row.round for row in run.round_rows()] == [0, 1, 2, 3, 4]
    assert run.clients().num_rows == 5 * 5 + 4 * 5
    run.derive()
    assert pq.read_table(path / "rounds.parquet").num_rows == 5
    assert "was killed after round 4 of 12" in write_report(run).read_text()


def test_an_unknown_run_names_the_nearest(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f'Did you mean "{run.name}"'):
        RunFolder.open(run.name.replace("thyroid", "thyriod"), tmp_path)
    with pytest.raises(RunError, match="contains no runs"):
        RunFolder.open("anything", tmp_path / "empty")
    assert RunFolder.open(run.name, tmp_path).path == run.path


def test_a_damaged_summary_is_named(run: RunFolder) -> None:
    (run.path / "summary.json").write_text("{")
    with pytest.raises(RunError, match=r"summary\.json"):
        run.summary()


def test_log_reports_rounds_and_failures(run: RunFolder) -> None:
    run.on_message("statistics from 2 clients")
    run.on_round(round_row(1), [client_row(1, 1, error="worker died")])
    log = (run.path / "log.txt").read_text()
    assert "statistics from 2 clients" in log
    assert "round 1/12" in log
    assert "train failed at site 1: worker died" in log


def test_an_atomic_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (np.float64(0.5), 0.5),
        (np.int32(3), 3),
        (np.bool_(True), True),
        (np.array([1.0, math.nan]), [1.0, "NaN"]),
        ({1: (2, None)}, {"1": [2, None]}),
        (Interval(1.0, 0.0, 2.0), {"value": 1.0, "low": 0.0, "high": 2.0}),
        (Path("a/b"), "a/b"),
    ],
)
def test_plain(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_a_journal_without_a_file_cannot_be_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none.jsonl")
    assert not journal.is_being_written()
    with pytest.raises(RunError, match="cannot read"):
        list(journal.read())


def parsed_lines(action: Callable[[], object]) -> int:
    """Return how many lines of events an action parses."""
    count = 0

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        caller = frame.f_back
        if event == "call" and frame.f_code is json.loads.__code__ and caller is not None:
            count += caller.f_code.co_filename.endswith("journal.py")

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def test_a_folder_parses_each_event_once_and_messages_once_more(run: RunFolder) -> None:
    """1 start, 12 rounds, 1 test: 14 lines; the table of messages reads the 12 rounds again, once."""
    for number in range(12):
        run.on_round(round_row(number), [client_row(number)])
    run.on_sites([SiteRow(0, "SVI", 10, 4, 3, {"federated": {"auc": Interval(0.9, 0.8, 1.0)}})])
    reader = RunFolder.open(run.path)

    def look() -> None:
        for _ in range(10):
            reader.round_rows(), reader.sites(), reader.messages(), reader.status(), reader.rounds()

    assert parsed_lines(look) == 14
    assert parsed_lines(look) == 0
    assert parsed_lines(lambda: (reader.clients(), reader.clients())) == 12
    run.on_round(round_row(12), [client_row(12)])
    assert parsed_lines(look) == 1
    assert reader.clients()["round"].to_pylist() == list(range(13))
    assert reader.client_rows()[-1].round == 12


def test_a_report_parses_each_event_once_and_messages_once_more(run: RunFolder) -> None:
    """Over 1 start, 6 rounds and 1 end."""
    for number in range(6):
        run.on_round(round_row(number), [client_row(number)])
    run.finish("finished", {})
    assert parsed_lines(lambda: write_report(RunFolder.open(run.path))) == 8 + 6


def test_a_follower_of_a_run_sees_a_round_when_it_is_told(run: RunFolder) -> None:
    follower = RunFolder.open(run.path).follow()
    assert [event["event"] for _, event in follower.new()] == ["start"]
    for number in (1, 2):
        run.on_round(round_row(number), [])
        assert [event["row"]["round"] for _, event in follower.new()] == [number]
