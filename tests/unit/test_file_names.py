"""Names of clients as names of files: reversible, never a path, and the same bits read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.clients.pilot.site_data import load_site
from shoal.common.config import Scenario
from shoal.common.errors import DataError
from shoal.common.file_names import file_name, original_name
from shoal.common.tabular.file_format import FileFormat
from shoal.simulations import datasets
from shoal.simulations.datasets.site_files import write_sites


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Klinik Süd 北", "Klinik Süd 北"),
        ("../out", "%2E.%2Fout"),  # 2E is the dot, 2F the slash in ASCII
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("", "%"),
        (".", "%2E"),
        ("con.north", "%63on.north"),
        ("ward 7.", "ward 7%2E"),
        ("~root", "%7Eroot"),
        ("a\0b", "a%00b"),
    ],
)
def test_what_is_no_plain_file_name_is_percent_encoded(name: str, file: str) -> None:
    assert file_name(name) == file
    assert original_name(file) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_name_stays_in_its_folder_and_comes_back(name: str) -> None:
    found = file_name(name)
    assert original_name(found) == name
    assert Path("folder") / found == Path("folder", found)
    assert (Path("/folder") / f"{found}.csv").resolve().parent == Path("/folder")


def test_a_name_that_no_file_system_takes_is_refused() -> None:
    with pytest.raises(DataError, match="takes 300 bytes as a file name; at most 200 fit"):
        file_name("北" * 100)  # three bytes each


def rows_of(folder: Path, names: list[str]) -> Scenario:
    lines = [f"{names[i % len(names)]},{20 + i},{'yes' if i % 3 else 'no'}" for i in range(60)]
    (folder / "p.csv").write_text("\n".join(["site,age,y", *lines]), encoding="utf-8")
    data = {"source": "csv", "path": str(folder / "p.csv"), "client_column": "site", "label": "y"}
    return Scenario.model_validate(
        {"name": "t", "data": data, "model": {"name": "mlp"}, "partition": {"min_rows": 2}}
    )


def test_files_of_sites_stay_in_the_folder_and_are_read_back(tmp_path: Path) -> None:
    config = rows_of(tmp_path, ["../out", "a/b"])
    population = datasets.load_population(config)
    written = write_sites(population, tmp_path / "sites", FileFormat())
    assert {path.parent for path in written} == {tmp_path / "sites"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "sites"]
    for client, path in enumerate(written):
        assert original_name(path.stem) == population.name(client)
        read = load_site(path, population.schema, config)
        assert read.columns["age"].tobytes() == population.shard(client).columns["age"].tobytes()


def test_files_that_would_overwrite_each_other_on_some_systems_are_refused(tmp_path: Path) -> None:
    population = datasets.load_population(rows_of(tmp_path, ["North", "north"]))
    with pytest.raises(DataError, match="names of 2 clients differ in capital letters only"):
        write_sites(population, tmp_path / "sites", FileFormat())
    assert not (tmp_path / "sites").exists()
