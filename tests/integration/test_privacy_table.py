"""`shoal privacy-table`: each cell a real run, told side by side, and none run twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.cli import main
from shoal.common.errors import ConfigError
from shoal.simulations.results import RunFolder
from shoal.simulations.results.sites import over_sites
from shoal.simulations.sweeps.privacy import privacy_cells
from shoal.simulations.sweeps.runs import Cell, load_cells

SHARED = ["--set", "training.rounds=2", "--set", "output.bootstrap=0", "--set", "resources.backend=serial"]


def run_table(folder: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["privacy-table", "linear", "--units", "client", "--epsilons", "8,50", *SHARED,
              "--output", str(folder)])  # fmt: skip
    assert ended.value.code == 0


def test_a_table_holds_what_its_runs_hold_and_runs_each_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_table(tmp_path)
    content = json.loads((tmp_path / "table.json").read_text())
    rows = {(row["unit"], row["budget"]): row for row in content["rows"]}
    assert list(rows) == [("none", "Infinity"), ("client", 50.0), ("client", 8.0)]
    for row in rows.values():
        run = RunFolder.open(row["run"])
        across = over_sites(run.sites(), "federated", content["metric"])
        assert across is not None
        assert (row["mean"], row["worst"]) == (across.mean, across.worst)
        assert set(row["sites"]) == {site.name for site in run.sites()}
    assert rows["none", "Infinity"]["epsilon"] == "NaN"
    assert 7.9 < rows["client", 8.0]["epsilon"] <= 8
    page = (tmp_path / "table.html").read_text()
    assert "client, ε 8" in page
    assert all(name in page for name in rows["client", 8.0]["sites"])

    capsys.readouterr()
    run_table(tmp_path)
    assert capsys.readouterr().out.count(": done") == 3
    assert len(list(tmp_path.glob("*/events.jsonl"))) == 3


def test_budgets_come_weakest_first_after_the_run_without() -> None:
    names = [cell.name for cell in privacy_cells(["record", "client"], [1, 8])]
    assert names == ["none", "record-8", "record-1", "client-8", "client-1"]


def test_all_cells_are_checked_before_the_first_runs() -> None:
    cells = [Cell("fine", ()), Cell("bad", ("privacy.unit=client",)), Cell("worse", ("training.rounds=x",))]
    with pytest.raises(ConfigError) as refused:
        load_cells("linear", cells, [])
    assert [line.split(":")[0] for line in refused.value.problems] == ["bad", "worse"]


def test_typos_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    for given, says in ((["--units", "clinet"], 'Did you mean "client"?'), (["--epsilons", "a"], "numbers")):
        with pytest.raises(SystemExit) as ended:
            main(["privacy-table", "linear", *given])
        assert ended.value.code == ConfigError.exit_code
        assert says in capsys.readouterr().err
