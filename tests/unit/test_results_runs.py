from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from shoal.common.errors import RunError
from shoal.simulations.report import write_report
from shoal.simulations.results import RunFolder
from shoal.simulations.results import terminal as runs

_SPEC = importlib.util.spec_from_file_location("example_run", Path(__file__).with_name("example_run.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    sites = example.make_sites()
    for name, rounds, compare in (("first", 3, True), ("second", 5, False)):
        run = RunFolder.create(example.scenario(folder, name, rounds))
        run.on_sites(example.final_test(example.tell_rounds(run, sites, rounds), sites, 9, compare=compare))
        run.finish("finished", {})
        write_report(run)
        run.path.rename(folder / name)
    return folder


def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def said(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_list_names_each_run_and_says_which_is_unreadable(directory: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).symlink_to(directory / name)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "events.jsonl").write_text("")
    screen = console()
    runs.list_runs(tmp_path, screen)
    lines = said(screen).splitlines()
    assert len(lines) == 4
    assert any("3/3" in line and "finished" in line and "AUC" in line for line in lines)
    assert any("broken" in line and "unreadable" in line for line in lines)


def test_list_of_nothing(tmp_path: Path) -> None:
    screen = console()
    runs.list_runs(tmp_path / "none", screen)
    assert "contains no runs" in said(screen)


def test_show_reports_the_verdict_and_each_site(directory: Path) -> None:
    screen = console()
    runs.show_run("first", directory, screen)
    text = said(screen)
    assert "Federat" in text
    assert all(name in text for name in example.SITES)
    assert "local-only" in text
    sites = RunFolder.open("first", directory).sites()
    assert f"{sites[0].tests['federated']['auc'].value:.3f}" in text


def test_show_says_why_a_run_failed(tmp_path: Path) -> None:
    run = RunFolder.create(example.scenario(tmp_path))
    run.finish("failed", {"error": "DataError: [no] rows"})
    write_report(run)
    screen = console()
    runs.show_run(run, console=screen)
    assert "DataError: [no] rows" in said(screen)


def test_compare_reports_what_differs(directory: Path) -> None:
    screen = console()
    runs.compare_runs("first", "second", directory, screen)
    text = said(screen)
    row = next(line for line in text.splitlines() if line.startswith("training.rounds"))
    assert row.split() == ["training.rounds", "3", "5"]
    values = [
        {r.name: r.tests["federated"]["auc"].value for r in RunFolder.open(name, directory).sites()}
        for name in ("first", "second")
    ]
    line = next(line for line in text.splitlines() if line.startswith("SVHC"))
    assert line.split()[1:3] == [f"{value['SVHC']:.3f}" for value in values]


def test_compare_with_itself(directory: Path) -> None:
    screen = console()
    runs.compare_runs("first", "first", directory, screen)
    assert "The configurations are the same." in said(screen)


def test_report_of_a_killed_run_writes_the_tables_too(tmp_path: Path) -> None:
    run = RunFolder.create(example.scenario(tmp_path))
    example.tell_rounds(run, example.make_sites(), 2)
    run.close()
    path = runs.rewrite_report(run.name, tmp_path)
    assert path == tmp_path / run.name / "report.html"
    assert 500_000 < path.stat().st_size < 1_000_000  # the library that draws is inside
    assert (path.parent / "clients.parquet").is_file()


def test_an_unknown_run_is_refused(directory: Path) -> None:
    with pytest.raises(RunError, match='Did you mean "second"'):
        runs.rewrite_report("secnd", directory)
