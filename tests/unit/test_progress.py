from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from shoal.common.events import RoundRow
from shoal.simulations.progress import VISIBLE, ProgressDisplay

_SPEC = importlib.util.spec_from_file_location("example_run", Path(__file__).with_name("example_run.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)

SCENARIO = example.scenario(Path("runs"), rounds=16)


def told(*, terminal: bool, rounds: int = 16, **site_arguments: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120, color_system=None)
    sites = example.make_sites(**site_arguments)
    with ProgressDisplay(SCENARIO, console) as progress:
        weights = example.tell_rounds(progress, sites, rounds, failing="SVHC")
        progress.on_sites(example.final_test(weights, sites, 30))
    return stream.getvalue()


def row(number: int, seconds: float) -> RoundRow:
    return RoundRow(number, 4, 4, 100, 0.1, 0.5, {"auc": 0.7}, False, 1, 1, seconds)


def test_one_plain_line_a_round_without_a_terminal() -> None:
    lines = told(terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    rounds = [line for line in lines if line.startswith("round ")]
    assert len(rounds) == 17  # 0 to 16
    assert lines[0] == "statistics from 5 clients"
    assert "cohort 5 (1 failed)" in rounds[3]
    assert "clients/s" in rounds[1]
    assert rounds[1].endswith(" left")
    assert rounds[0].startswith("round 0/16  AUC ")
    table = lines[lines.index(rounds[-1]) + 1 :]
    assert [line.split()[0] for line in table[2:-1]] == list(example.SITES)  # by size, as listed
    assert table[-1].startswith("mean")


def test_the_live_table_shows_the_last_rounds_and_the_best() -> None:
    screen = told(terminal=True)
    last = screen[screen.rindex("train loss") :]
    shown = [
        line.split()[0] for line in last.splitlines()[1:] if line.split()[:1] and line.split()[0].isdigit()
    ]
    # `VISIBLE` rounds, the last ones, then the footer, which starts with the number of rounds.
    assert shown == [*(str(i) for i in range(17 - VISIBLE, 17)), "16"]
    assert last.count("★") == 1
    assert "16 rounds done" in last
    assert "local-only" in last


def test_the_terminal_is_freed_when_the_run_breaks() -> None:
    stream = io.StringIO()
    progress = ProgressDisplay(SCENARIO, Console(file=stream, force_terminal=True, width=100))

    def interrupted() -> None:
        with progress:
            progress.on_round(row(1, 1.0), [])
            assert "\x1b[?25l" in stream.getvalue()  # the cursor is hidden
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in stream.getvalue()  # and shown again


def test_time_left_does_not_count_the_first_round() -> None:
    progress = ProgressDisplay(SCENARIO, Console(file=io.StringIO()))
    progress.on_round(row(0, 9.0), [])
    assert progress.seconds_left() is None
    progress.on_round(row(1, 10.0), [])
    assert progress.seconds_left() == pytest.approx(15 * 10.0)  # nothing better is known
    progress.on_round(row(2, 1.0), [])
    progress.on_round(row(3, 2.0), [])
    assert progress.seconds_left() == pytest.approx(13 * 1.5)


def test_messages_are_not_read_as_markup() -> None:
    stream = io.StringIO()
    ProgressDisplay(SCENARIO, Console(file=stream)).on_message("[bold]site[/bold] [x]")
    assert stream.getvalue() == "[bold]site[/bold] [x]\n"


def test_many_sites_show_the_ends() -> None:
    text = told(terminal=False, rounds=1, sites=example.many_sites(70))
    lines = [line for line in text.splitlines() if line.startswith("centre ")]
    assert len(lines) == 20
    assert "… 50 more" in text
