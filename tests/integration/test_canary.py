"""No value of a row is shown anywhere: canaries in every position of every format, over every command.

A canary is a value that occurs in one row only. It is planted where reading it works, where it is odd, and
where the file is broken; then each command that meets the file runs, and its output, its errors and every
file that it writes are searched for the canary. Names of columns, sites and classes are no values of rows:
they are part of the schema that the sites agree on.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin
from pyarrow import parquet

from shoal.cli import main as shoal

TEXT = "Zqcanary"
NUMBER = "73519264.125"
# What a search finds: the texts, and the number however it is rounded or grouped.
TRACES = ("zqcanary", "金丝雀", "73519264", "73,519,264", "7.3519", "7.352e", "7.35e")

HEAD = ["site", "dose", "age", "code", "seen", "note", "y"]
ROWS = 60
ODD = 37  # the row with the canary

Table = list[list[str]]


def clean() -> Table:
    """Return the header and rows of three sites with numbers, categories, a text and a label."""
    rng = np.random.default_rng(5)
    rows = [
        [
            "abc"[i % 3],
            f"{rng.normal():.3f}",
            f"{20 + i % 50}",
            ["red", "green", "blue"][i % 3 if i % 7 else 0],
            f"s{i % 4}",
            ["all well", "a cough", "no change"][i % 3],
            ["sick", "well"][int(rng.random() < 0.5)],
        ]
        for i in range(ROWS)
    ]
    return [HEAD, *rows]


def in_cell(column: str, value: str) -> Callable[[], Table]:
    def plant() -> Table:
        table = clean()
        table[ODD][HEAD.index(column)] = value
        return table

    return plant


def in_column(column: str, value: Callable[[int], str]) -> Callable[[], Table]:
    def plant() -> Table:
        table = clean()
        for i, row in enumerate(table[1:]):
            row[HEAD.index(column)] = value(i)
        return table

    return plant


def more_cells() -> Table:
    table = clean()
    table[ODD] += [TEXT, NUMBER]
    return table


def fewer_cells() -> Table:
    table = clean()
    table[ODD] = [TEXT, NUMBER]
    return table


def no_header() -> Table:
    _, first, *rest = clean()
    first[1], first[3] = NUMBER, TEXT
    return [first, *rest]


def line_before() -> Table:
    return [[f"{TEXT}; {NUMBER}"], *clean()]


CELLS: dict[str, Callable[[], Table]] = {
    "a text among numbers": in_cell("dose", TEXT),
    "a Chinese text among numbers": in_cell("dose", "金丝雀"),
    "a number below a limit": in_cell("dose", f"<{NUMBER}"),
    "a number with a unit": in_cell("dose", f"{NUMBER} {TEXT}"),
    "an extreme number": in_cell("dose", NUMBER),
    "an infinite number": in_cell("dose", "inf"),
    "numbers with commas": in_column("dose", lambda i: NUMBER.replace(".", ",") if i == ODD else f"{i},5"),
    "a rare category": in_cell("code", TEXT),
    "a long category": in_cell("code", TEXT * 40_000),
    "identifiers": in_column("code", lambda i: f"{TEXT}-{i}"),
    "numbers as identifiers": in_column("code", lambda i: NUMBER[:8] * 2 if i == ODD else f"{10**15 + i}"),
    "dates": in_column("seen", lambda i: TEXT if i == ODD else f"2024-03-{i % 28 + 1:02d}"),
    "free text": in_column("note", lambda i: f"{TEXT} is case {i} and came at {NUMBER}"),
    "a label among numbers": in_column("y", lambda i: TEXT if i == ODD else f"{i / 7:.3f}"),
    "a label that is no number": in_column("y", lambda i: "nan" if i == ODD else f"{i / 7:.3f}"),
    "more cells": more_cells,
    "fewer cells": fewer_cells,
    "no header": no_header,
    "a line before the header": line_before,
    "a null byte": in_cell("code", f"{TEXT}\0{NUMBER}"),
    "an open quote": in_cell("code", f'"{TEXT}'),
    "a quote within": in_cell("code", f'{TEXT}"{NUMBER}"x'),
    "a line break": in_cell("code", f'"{TEXT}\n{NUMBER}"'),
    "a delimiter within": in_cell("code", f"{TEXT},{NUMBER}"),
    "markup": in_cell("code", f"[/bold]<script>{TEXT}</script>"),
}


def as_text(table: Table, delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + "\n" for row in table)


def csv(folder: Path, table: Table) -> Path:
    path = folder / "rows.csv"
    path.write_text(as_text(table), encoding="utf-8")
    return path


def tsv(folder: Path, table: Table) -> Path:
    path = folder / "rows.TSV"
    path.write_text(as_text(table, "\t"), encoding="utf-8-sig")
    return path


def gz(folder: Path, table: Table) -> Path:
    path = folder / "rows.csv.gz"
    path.write_bytes(gzip.compress(as_text(table).encode("utf-16")))
    return path


def truncated(folder: Path, table: Table) -> Path:
    path = folder / "rows.csv.bz2"
    path.write_bytes(bz2.compress(as_text(table).encode())[:-9])
    return path


def bytes_of_no_encoding(folder: Path, table: Table) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(as_text(table).encode().replace(b"Zqcanary", b"\xff\x81Zqcanary"))
    return path


def site_files(folder: Path, table: Table) -> Path:
    head, *rows = table
    path = folder / "sites"
    path.mkdir()
    for k in range(3):
        (path / f"s{k}.csv").write_text(as_text([head, *rows[k::3]]), encoding="utf-8")
    return path


def typed(folder: Path, table: Table) -> Path:
    """Write Parquet: numbers as numbers where the whole column is one."""
    _, *rows = table
    path = folder / "rows.parquet"
    columns = dict(zip(HEAD, itertools.zip_longest(*rows), strict=False))
    parquet.write_table(pa.table({name: as_numbers(values) for name, values in columns.items()}), path)
    return path


def as_numbers(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array([None if value is None else float(value) for value in values])
    except ValueError:
        return pa.array(values, pa.string())


FORMATS: dict[str, Callable[[Path, Table], Path]] = {
    function.__name__: function
    for function in (csv, tsv, gz, truncated, bytes_of_no_encoding, site_files, typed)
}


def scenario(folder: Path, path: Path, data: str = "") -> Path:
    source = "parquet" if path.suffix == ".parquet" else "csv"
    client = "" if path.is_dir() else 'client_column = "site"'
    file = folder / "s.toml"
    file.write_text(
        f"""
name = "canary"
[data]
source = "{source}"
path = "{path.name}"
label = "y"
{client}
{data}
[model]
name = "logistic"
[training]
rounds = 1
[resources]
backend = "serial"
""",
        encoding="utf-8",
    )
    return file


def said_by(arguments: Sequence[object]) -> str:
    """Run a command in this process and return all that it prints."""
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error), pytest.raises(SystemExit):
        shoal([str(argument) for argument in arguments])
    return out.getvalue() + error.getvalue()


def traces(text: str) -> list[str]:
    return [trace for trace in TRACES if trace in text.lower()]


def assert_hidden(said: str, folder: Path, own: Sequence[Path]) -> None:
    """Search what was printed and every file below `folder` but the user's `own` files and folders."""
    assert "This is a bug" not in said, said
    assert not traces(said), said
    for path in folder.rglob("*"):
        if path.is_file() and not any(path == one or one in path.parents for one in own):
            found = path.read_bytes()
            text = found.decode("utf-8", "replace")
            assert not traces(text), f"{path} shows {traces(text)}"
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    inside = b"".join(archive.read(name) for name in archive.namelist())
                assert not traces(inside.decode("utf-8", "replace")), path


@pytest.mark.parametrize("where", CELLS)
@pytest.mark.parametrize("form", FORMATS)
def test_no_command_shows_a_value_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = FORMATS[form](tmp_path, CELLS[where]())
    file = scenario(tmp_path, path)
    said = "".join(said_by([command, file]) for command in ("validate", "data"))
    said += said_by(["split", file, tmp_path / "split"])
    if form in ("csv", "typed"):
        said += said_by(["run", file, "--compare"])
    assert_hidden(said, tmp_path, [path, tmp_path / "split"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a scenario, a run of clean rows, and its schema."""
    folder = tmp_path_factory.mktemp("trained")
    table = [[cell for cell, name in zip(row, HEAD, strict=True) if name != "note"] for row in clean()]
    file = scenario(folder, csv(folder, table))
    said = said_by(["run", file, "--output", folder / "runs"])
    assert "Report:" in said
    said_by(["split", file, folder / "split"])
    return folder


@pytest.mark.parametrize("where", CELLS)
@pytest.mark.parametrize("form", [name for name in FORMATS if name != "site_files"])
def test_neither_a_prediction_nor_a_site_shows_a_value_of_its_table(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = FORMATS[form](tmp_path, CELLS[where]())
    (run,) = (trained / "runs").iterdir()
    said = said_by(["predict", run, path])
    agreed = ["--schema", trained / "split" / "schema.json", "--data", path]
    nowhere = ["--server", "127.0.0.1:1", "--patience", "0", "--insecure", "--name", "a"]
    said += said_by(["client", trained / "s.toml", *agreed, *nowhere])
    assert_hidden(said, tmp_path, [path])


def texts(folder: Path) -> Path:
    path = folder / "texts"
    for i in range(40):
        file = path / f"s{i % 2}" / ("good", "bad")[i // 2 % 2] / f"{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{TEXT} {NUMBER}".encode() + b"\xff\xfe\x00" if i == ODD else b"all is well")
    return path


def images(folder: Path) -> Path:
    path = folder / "images"
    for i in range(40):
        file = path / f"s{i % 2}" / ("good", "bad")[i // 2 % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        comment = PngImagePlugin.PngInfo()
        comment.add_text("Comment", f"{TEXT} {NUMBER}")
        Image.new("RGB", (9, 9) if i == ODD else (8, 8), (i, i, i)).save(file, pnginfo=comment)
    return path


def broken_image(folder: Path) -> Path:
    path = images(folder)
    (path / "s0" / "good" / "0.png").write_text(f"{TEXT} {NUMBER}")
    return path


def arrays_of_texts(folder: Path) -> Path:
    path = folder / "rows.npz"
    x = np.array([[TEXT, NUMBER]] * 40)
    np.savez(path, x=x, y=np.arange(40) % 2, clients=np.arange(40) % 2)
    return path


def arrays_of_objects(folder: Path) -> Path:
    path = folder / "rows.npz"
    x = np.array([[TEXT, 1.0]] * 40, object)
    np.savez(path, x=x, y=np.arange(40) % 2, clients=np.arange(40) % 2)
    return path


def arrays_with_odd_labels(folder: Path) -> Path:
    path = folder / "rows.npz"
    y = np.array([f"{TEXT} {i}" for i in range(40)])
    np.savez(path, x=np.ones((40, 2)), y=y, clients=np.arange(40) % 2)
    return path


FOLDERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "text": ("text", texts),
    "image": ("images", images),
    "broken image": ("images", broken_image),
    "array of texts": ("npz", arrays_of_texts),
    "array of objects": ("npz", arrays_of_objects),
    "array with odd labels": ("npz", arrays_with_odd_labels),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_no_command_shows_a_text_an_image_or_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source, write = FOLDERS[kind]
    path = write(tmp_path)
    file = tmp_path / "s.toml"
    file.write_text(
        f'''name = "canary"
[data]
source = "{source}"
path = "{path.name}"
[model]
name = "mlp"
[training]
rounds = 1
[resources]
backend = "serial"
'''
    )
    said = "".join(said_by([command, file]) for command in ("validate", "data", "run"))
    said += said_by(["split", file, tmp_path / "split"])
    assert_hidden(said, tmp_path, [path, tmp_path / "split"])


def test_an_unexpected_error_of_a_library_hides_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python itself quotes the value: "could not convert string to float: 'Zqcanary'"."""
    (tmp_path / "canary_source.py").write_text(f"def load(**_):\n    return float({TEXT!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    file = scenario(tmp_path, csv(tmp_path, clean()))
    file.write_text(file.read_text().replace('source = "csv"', 'source = "canary_source:load"'))
    said = said_by(["validate", file])
    assert "ValueError" in said
    assert f"float({TEXT!r})" in said  # the line of code, which is the user's own
    assert "could not convert" not in said
    monkeypatch.setenv("SHOAL_SHOW_VALUES", "1")
    assert "could not convert" in said_by(["validate", file])
