"""`shoal attack-table` on a tiny grid: the backdoor opens under a mean and not under a defence."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from shoal import cli
from shoal.simulations.results import list_folders

ATTACK = "backdoor(target=7, factor=3)"
GRID = (
    *("attack-table", "digits", "--backend", "serial", "--rounds", "4"),
    *("--attacks", ATTACK, "--defences", "FLTrust,Bulyan"),
    *("--set", "partition.scheme=iid", "--set", "training.local_epochs=3"),
    *("--set", "attack.fraction=0.2", "--set", "output.bootstrap=0"),
)


def shoal(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of six cells, of which Bulyan's two cannot be run with ten clients."""
    path = tmp_path_factory.mktemp("table")
    assert shoal(*GRID, "--output", str(path)) == 1
    return path


def cells(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8") as stream:
        return {(row["attack"], row["defence"]): row for row in csv.DictReader(stream)}


def test_the_backdoor_opens_under_a_mean_and_is_shut_by_a_defence(folder: Path) -> None:
    found = cells(folder)
    success = {key: float(row["success"]) for key, row in found.items()}
    assert success["none", "FedAvg"] < 0.05  # the trigger alone does nothing
    assert success[ATTACK, "FedAvg"] > 0.7
    assert success[ATTACK, "FLTrust"] < 0.2
    last = {key: float(row["last"]) for key, row in found.items()}
    assert last["none", "FedAvg"] > 0.85
    assert last[ATTACK, "FLTrust"] > 0.8
    damage = float(found[ATTACK, "FedAvg"]["damage"])
    assert damage == pytest.approx(last["none", "FedAvg"] - last[ATTACK, "FedAvg"])
    assert found["none", "FedAvg"]["damage"] == "nan"


def test_a_cell_that_cannot_be_run_does_not_lose_the_others(folder: Path) -> None:
    row = cells(folder)["none", "Bulyan"]
    assert "Bulyan needs at least 11 clients per round" in row["error"]
    assert math.isnan(float(row["last"]))
    content = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    assert content["malicious"] == ["client-3", "client-6"]
    assert [c["attack"] for c in content["cells"]] == ["none"] * 3 + [ATTACK] * 3


def test_the_page_shows_it_all(folder: Path) -> None:
    page = (folder / "table.html").read_text(encoding="utf-8")
    assert "Malicious: 2 of 10 clients: client-3, client-6" in page
    assert "Does the backdoor succeed?" in page
    assert "Bulyan needs at least 11 clients" in page
    assert "src=" not in page.split("<script>")[0]  # nothing is loaded from anywhere


def test_a_table_that_is_called_again_goes_on_where_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {run.name: run.status() for run in list_folders(folder) if run.status() == "finished"}
    assert len(before) == 4
    found = cells(folder)
    arguments = [argument.replace("FLTrust,Bulyan", "FLTrust") for argument in GRID]
    assert shoal(*arguments, "--output", str(folder)) == 0
    assert {run.name for run in list_folders(folder) if run.status() == "finished"} == set(before)
    again = cells(folder)
    assert again == {key: found[key] for key in again}
    assert "[4/4]" in capsys.readouterr().out


def test_what_is_wrong_is_said_before_anything_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--attacks",
        "sgn-flip,backdoor(target=12)",
        "--defences",
        "Krumm",
        "--output",
        str(tmp_path),
    )
    assert shoal("attack-table", "digits", *arguments) == 3
    told = capsys.readouterr().err
    for part in ('Did you mean "sign-flip"?', "expected a class from 0 to 9", 'Did you mean "Krum"?'):
        assert part in told
    assert not list(tmp_path.iterdir())
