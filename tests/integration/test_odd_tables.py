"""Tables as people have them: each is read right, or refused before anything is trained, without a value."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from shoal.cli import main
from shoal.clients.pilot.site_data import load_site
from shoal.common.config import Scenario
from shoal.common.errors import ShoalError
from shoal.common.schema import Population
from shoal.common.tabular.file_format import FileFormat
from shoal.simulations import datasets
from shoal.simulations.datasets.site_files import write_sites

CANARY = "canary-7781"  # a value of a row: no message may hold it
Row = Callable[[int], str]


def scenario(path: Path, source: str = "csv", **data: object) -> Scenario:
    given = {"source": source, "path": str(path), "client_column": "site", "label": "y"} | data
    given = {key: value for key, value in given.items() if value is not None}
    return Scenario.model_validate(
        {"name": "t", "data": given, "model": {"name": "mlp"}, "partition": {"min_rows": 2}}
    )


def load(path: Path, source: str = "csv", **data: object) -> Population:
    return datasets.load_population(scenario(path, source, **data))


def table(folder: Path, head: str, row: Row, name: str = "p.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes((head + "\n" + "".join(row(i) + "\n" for i in range(60))).encode(encoding))
    return path


def site_and_label(i: int) -> tuple[str, str]:
    return "AB"[i % 2], "yes" if i % 3 else "no"


def of(value: Callable[[int], object]) -> Row:
    return lambda i: f"{site_and_label(i)[0]},{value(i)},{site_and_label(i)[1]}"


def column(population: Population, name: str = "x") -> list[object]:
    return [v for client in range(len(population)) for v in population.shard(client).columns[name].tolist()]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda i: f"{20 + i},5".join('""'), 'data.args.decimal = ","'),
        (lambda i: f"1,{i:03d}".join('""'), "data.args.thousands"),
        (lambda i: CANARY if i == 7 else i * 1.01, "holds numbers but for 1 of 60 values"),
        (lambda i: "mmol/l" if i == 0 else i * 1.01, "data.args.header = 2 if units follow"),
        (lambda i: f"{i % 28 + 1:02d}/0{i % 9 + 1}/2023", "dates or times"),
        (lambda i: f"2023-01-{i % 28 + 1:02d} 10:{i:02d}", "dates or times"),
        (lambda i: f"{CANARY}{i}", "looks like an identifier"),
        (lambda i: 110101199001010000 + i, "looks like an identifier"),
        (lambda i: f"{CANARY} and a long remark on visit {i}", "looks like free text"),
    ],
)
def test_a_column_that_would_be_lost_needs_a_decision(
    tmp_path: Path, value: Callable[[int], object], told: str
) -> None:
    path = table(tmp_path, "site,x,y", of(value))
    with pytest.raises(ShoalError) as caught:
        load(path)
    assert told in str(caught.value)
    assert '"x"' in str(caught.value)
    assert CANARY not in str(caught.value)
    assert load(
        table(tmp_path, "site,x,z,y", lambda i: of(lambda i: f"{value(i)},{i % 5}")(i)), exclude=("x",)
    )


@pytest.mark.parametrize(
    ("value", "kind", "first"),
    [
        (lambda i: f"0{i % 7}", "categorical", "00"),
        (lambda i: [" a", "b "][i % 2], "categorical", "a"),
        (lambda i: [" 1.5", "2 "][i % 2], "numeric", 1.5),
        (lambda i: ["True", "False"][i % 2], "categorical", "True"),
    ],
)
def test_texts_stay_texts_and_white_space_is_removed(
    tmp_path: Path, value: Callable[[int], object], kind: str, first: object
) -> None:
    population = load(table(tmp_path, "site,x,y", of(value)))
    assert population.schema.columns[0].kind == kind
    assert column(population)[0] == first


def test_decimals_thousands_and_a_line_that_names_the_separator(tmp_path: Path) -> None:
    def row(i: int) -> str:
        site, label = site_and_label(i)
        return f"{site};1.{i:03d},5;{label}"

    path = table(tmp_path, "sep=;\nsite;x;y", row)
    population = load(path, args={"decimal": ",", "thousands": "."})
    assert sorted(column(population)) == [1000.5 + i for i in range(60)]  # type: ignore[type-var]


def test_a_file_without_header_shows_no_value(tmp_path: Path) -> None:
    def row(i: int) -> str:
        return f"{'AB'[i % 2]},n,{i},{'HIV' if i % 2 else 'none'}"

    path = table(tmp_path, f"A,{CANARY},47.5,HIV", row)
    with pytest.raises(ShoalError, match="seems to have no header") as caught:
        load(path)
    assert CANARY not in str(caught.value)
    found = load(path, args={"header": ["site", "name", "x", "y"]}, exclude=("name",), label="x")
    assert sum(map(found.rows, range(2))) == 61


def test_one_file_a_site_is_read_by_one_decision(tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    sites.mkdir()
    for site, value in (("007", "250.50"), ("7", "V45")):
        rows = "".join(f"{value if i % 2 else '250.50'},{'no' if i % 3 else 'yes'}\n" for i in range(60))
        (sites / f"{site}.csv").write_text(f"x,y\n{rows}")
    (sites / "._7.csv").write_bytes(b"\0\5\x16\7")
    population = load(sites, client_column=None, args={"categorical": ["x"]})
    assert sorted(population.name(i) for i in range(2)) == ["007", "7"]
    assert set(column(population)) == {"250.50", "V45"}


def test_labels_as_numbers_decimals_and_padded_texts(tmp_path: Path) -> None:
    path = table(tmp_path, "site,x,y", lambda i: f"{'AB'[i % 2]},{i % 9},{float(i % 3)}")
    assert load(path).schema.classes == ("0", "1", "2")
    path = table(tmp_path, "site,x,y", lambda i: of(lambda i: i % 9)(i) + (" " if i % 5 == 0 else ""))
    population = load(path)
    assert population.schema.classes == ("no", "yes")
    assert any("white space around 12 values" in note for note in population.notes)  # type: ignore[attr-defined]
    values = {"site": ["A", "B"] * 30, "x": list(range(60)), "y": [Decimal(f"{i}.50") for i in range(60)]}
    parquet.write_table(pa.table(values), tmp_path / "p.parquet")
    assert load(tmp_path / "p.parquet", "parquet").schema.task == "regression"


def test_rows_without_label_are_left_out_on_demand(tmp_path: Path) -> None:
    def row(i: int) -> str:
        site, label = site_and_label(i)
        return f"{site},{i % 9},{'' if i < 6 else label}"

    population = load(table(tmp_path, "site,x,y", row), args={"drop_missing_labels": True})
    assert sum(map(population.rows, range(2))) == 54


def test_compressed_long_and_unnamed(tmp_path: Path) -> None:
    text = ",site,note,y\n" + "".join(
        f"{i},{site_and_label(i)[0]},{'word ' * (600_000 if i == 5 else 2)},{site_and_label(i)[1]}\n"
        for i in range(60)
    )
    (tmp_path / "p.csv.bz2").write_bytes(bz2.compress(text.encode()))
    population = load(tmp_path / "p.csv.bz2", text_column="note")
    assert max(len(str(v)) for v in column(population, "note")) == 3_000_000
    assert any("without a name" in note for note in population.notes)  # type: ignore[attr-defined]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
def test_a_pilot_reads_the_bits_of_the_simulation(tmp_path: Path, delimiter: str, encoding: str) -> None:
    """A site's file from `shoal split`, or in another encoding, gives the rows of the simulated client."""
    rng = np.random.default_rng(3)
    draws = rng.normal(size=60) * 10.0 ** rng.integers(-8, 8, 60)

    def row(i: int) -> str:
        site, label = site_and_label(i)
        code = ["250.00", "250.0", "V45", "NA", '"a;b,c"', "北京"][i % 6]
        return delimiter.join((site, "" if i == 9 else repr(float(draws[i])), code, label))

    head = delimiter.join(("site", "dose", "code", "y"))
    path = table(tmp_path, head, row, encoding=encoding)
    args: dict[str, object] = {"delimiter": delimiter}
    chosen = scenario(path, args=args | ({"encoding": "gbk"} if encoding == "gbk" else {}))
    population = datasets.load_population(chosen)
    files = write_sites(population, tmp_path / "sites", FileFormat.from_args(chosen.data.args))
    for client, file in enumerate(files):
        expected, found = population.shard(client), load_site(file, population.schema, chosen)
        assert found.labels.tobytes() == expected.labels.tobytes()
        assert found.columns["dose"].tobytes() == expected.columns["dose"].tobytes()
        assert found.columns["code"].tolist() == expected.columns["code"].tolist()
    assert set(column(population, "code")) == {"250.00", "250.0", "V45", None, "a;b,c", "北京"}


def test_validate_shows_notes_on_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(
        tmp_path, "site,x,unit,y", lambda i: f"{site_and_label(i)[0]},{i % 7}.5,mg,{site_and_label(i)[1]}"
    )
    file = tmp_path / "t.toml"
    file.write_text(
        f'name = "t"\n[data]\nsource = "csv"\npath = "{path.name}"\nclient_column = "site"\nlabel = "y"\n'
        '[model]\nname = "logistic"\n'
    )
    with pytest.raises(SystemExit) as left:
        main(["validate", str(file)])
    assert not left.value.code
    assert 'note: "unit" has the same value in every row' in capsys.readouterr().out


@pytest.mark.parametrize("named", [True, False], ids=["client_column", "first folder"])
def test_folders_named_key_value_are_columns(tmp_path: Path, named: bool) -> None:
    """As Hive and Spark write a table that is partitioned by site and year, with names percent-encoded."""
    whole = pa.table(
        {
            "site": ["北/A" if i % 2 else "B" for i in range(60)],
            "year": [2023 + i % 3 for i in range(60)],
            "x": [float(i) for i in range(60)],
            "y": ["yes" if i % 3 else "no" for i in range(60)],
        }
    )
    folder = tmp_path / "rows"
    parquet.write_to_dataset(whole, folder, partition_cols=["site", "year"])
    (folder / "_SUCCESS").write_text("")
    population = load(folder, "parquet", client_column="site" if named else None)
    assert sorted(population.name(i) for i in range(len(population))) == ["B", "北/A"]
    assert [column.name for column in population.schema.columns] == (
        ["x", "year"] if named else ["x", "site", "year"]
    )
    assert sorted(column(population, "x")) == [float(i) for i in range(60)]
    assert set(column(population, "year")) == {"2023", "2024", "2025"}
