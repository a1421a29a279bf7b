"""`shoal data`: what the clients hold, as a table and as a page."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from shoal.common.config import Scenario
from shoal.common.config.file import BUILTIN_SCENARIOS
from shoal.common.schema import Column, Schema, Shard
from shoal.simulations import datasets
from shoal.simulations.datasets import view as data_view
from shoal.simulations.report.population import population_page, write_population_page


class Few:
    """Three clients of (1, 2, 3) x 4 rows; a quarter of their numbers and half of their words are missing."""

    def __init__(self, classes: tuple[str, ...] = ("no", "yes")) -> None:
        task = "regression" if not classes else "binary" if len(classes) == 2 else "multiclass"
        self.schema = Schema((Column("n", "numeric"), Column("w", "categorical")), task, classes, "y")
        self.left_out = {"tiny [1]": 3}

    def __len__(self) -> int:
        return 3

    def name(self, client: int) -> str:
        return f"[bold]{client}[/bold]"

    def rows(self, client: int) -> int:
        return 4 * (client + 1)

    def shard(self, client: int) -> Shard:
        rows = self.rows(client)
        numbers = np.where(np.arange(rows) % 4 == 0, np.nan, 1.0)
        words = np.where(np.arange(rows) % 2 == 0, None, "a")
        kind = np.int32 if self.schema.classes else np.float32
        return Shard({"n": numbers, "w": words}, (np.arange(rows) % 2).astype(kind))


def scenario(name: str, **partition: object) -> Scenario:
    values = tomllib.loads((BUILTIN_SCENARIOS / f"{name}.toml").read_text(encoding="utf-8"))
    return Scenario.model_validate(values | {"partition": values["partition"] | partition})


def test_describe() -> None:
    views = data_view.describe(Few())
    assert [view.rows for view in views] == [4, 8, 12]
    assert views[1].labels == (4, 4)
    assert views[1].missing_rate == (0.25 + 0.5) / 2
    assert (views[1].mean, views[1].std) == (None, None)
    regression = data_view.describe(Few(()), limit=1)
    assert len(regression) == 1
    assert (regression[0].labels, regression[0].mean, regression[0].std) == ((), 0.5, 0.5)


def test_show_prints_names_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=120)
    console.print(data_view.table(Few()))
    told = capsys.readouterr().out
    assert "[bold]2[/bold]" in told
    assert "37.5%" in told
    assert "yes %" in told
    assert "50.0%" in told
    lines = data_view.summary(Few())
    assert lines[0] == "3 clients, 24 rows: smallest 4, median 8, largest 12"
    assert lines[1] == 'inputs: 1 categorical, 1 numeric; learns "y" of 2 classes'
    assert lines[2].endswith(": tiny [1] (3)")


def test_many_classes_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=120).print(data_view.table(Few(tuple(f"c{i}" for i in range(20)))))
    told = capsys.readouterr().out
    assert "most frequent" in told
    assert "c0 (2)" in told  # labels are 0, 1, 0, 1 at client 0


def test_show_lists_no_million(capsys: pytest.CaptureFixture[str]) -> None:
    data_view.show(datasets.load_population(scenario("linear", clients=1_000_000)))
    told = capsys.readouterr().out.splitlines()
    assert len(told) < 45
    assert "… and 999,970 more clients" in told
    assert any(line.startswith("1,000,000 clients, sizes of 10,000 clients: smallest 100") for line in told)


def test_show_names_clients_that_were_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    data_view.show(datasets.load_population(scenario("medical-thyroid")))
    assert "WEST (3)" in capsys.readouterr().out


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    path = tmp_path / "new" / "thyroid.html"
    write_population_page("medical-thyroid", datasets.load_population(scenario("medical-thyroid")), path)
    text = path.read_text(encoding="utf-8")
    assert 'src="http' not in text
    for name in ("SVHD", "sick", "Rows by class", "Share of input values"):
        assert name in text
    assert path.stat().st_size < 1_000_000


def test_the_page_of_a_regression_shows_means() -> None:
    text = population_page("few", data_view.describe(Few(())), 3, Few(()).schema)
    assert "standard deviation" in text
    assert "Clients shown: 3." in text
    assert "Rows by class" not in text


def test_the_list_names_every_source() -> None:
    told = data_view.list_datasets()
    for name, source in datasets.SOURCES.items():
        assert name in told
        assert source.summary in told
