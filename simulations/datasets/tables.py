"""The user's own tables: one CSV or Parquet file with a client column, or a folder of one a client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from common import errors
from common.config import DataConfig, Scenario
from common.errors import ConfigError, UnreadableDataError
from common.schema import Population
from simulations.datasets.loading import existing_path, spread
from simulations.datasets.raw import Raw

_FILE_COLUMN = "file"  # of a folder: the site is the file's name
_CSV_SUFFIXES = (".csv", ".csv.gz", ".tsv")


def load_csv(scenario: Scenario) -> Population:
    """Load a CSV file, or a folder of CSV files, one a client."""
    return _load(scenario, read_csv, _CSV_SUFFIXES)


def load_parquet(scenario: Scenario) -> Population:
    """Load a Parquet file, or a folder of Parquet files, one a client."""
    return _load(scenario, read_parquet, (".parquet",))


def read_csv(path: Path) -> pa.Table:
    """Read a CSV file (tab-separated if it ends in .tsv); empty fields are missing values.

    Raises:
        UnreadableDataError: names the file and the line, never what stands in it.
    """
    bad: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    parse = csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", invalid_row_handler=note)
    convert = csv.ConvertOptions(strings_can_be_null=True, null_values=["", "NA", "NaN", "nan", "null"])
    try:
        # One thread: the parser then knows the number of a bad line.
        table = csv.read_csv(
            path,
            parse_options=parse,
            convert_options=convert,
            read_options=csv.ReadOptions(use_threads=False),
        )
    except UnicodeDecodeError as error:
        raise UnreadableDataError(f"{path} is not UTF-8 at byte {error.start}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableDataError(f"{path} cannot be read as CSV: {_without_values(error)}") from None
    if bad:
        first = bad[0]
        where = f"line {first.number}" if first.number else "a line"
        raise UnreadableDataError(
            f"{path}, {where}: {first.actual_columns} fields, expected {first.expected_columns}"
            f"{f' (and {len(bad) - 1} more such lines)' if len(bad) > 1 else ''}",
            hint="a text that holds the separator needs quotes",
        )
    return table


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        UnreadableDataError: names the file.
    """
    try:
        return parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableDataError(f"{path} cannot be read as Parquet: {_without_values(error)}") from None


def _without_values(error: Exception) -> str:
    """Return the first words of Arrow's message: what follows the last colon may be a value."""
    head = str(error).splitlines()[0] if str(error) else type(error).__name__
    return head.partition("'")[0].rpartition(":")[0] or head.partition(":")[0]


def _load(scenario: Scenario, read: Callable[[Path], pa.Table], suffixes: tuple[str, ...]) -> Population:
    path = existing_path(scenario)
    data = scenario.data
    table = _read_folder(path, read, suffixes, data) if path.is_dir() else read(path)
    site = _FILE_COLUMN if path.is_dir() and data.client_column is None else data.client_column
    names = table.column_names
    problems = [
        f"data.{key}: {errors.unknown_name('column', name, names)}"
        for key, name in (("label", data.label), ("client_column", site), ("text_column", data.text_column))
        if name is not None and name not in names
    ]
    if problems or data.label is None:
        raise ConfigError(problems or "data.label: needs the name of the column to predict")
    if not table.num_rows:
        raise UnreadableDataError(f"{path} holds no rows")
    return spread(Raw(table, label=data.label, site=site, text=data.text_column), scenario)


def _read_folder(
    folder: Path, read: Callable[[Path], pa.Table], suffixes: tuple[str, ...], data: DataConfig
) -> pa.Table:
    files = sorted(f for f in folder.iterdir() if f.name.endswith(suffixes))
    if not files:
        raise UnreadableDataError(f"{folder} holds no file that ends in {', '.join(suffixes)}")
    tables: list[pa.Table] = []
    for file in files:
        table = read(file)
        if tables and set(table.column_names) != set(tables[0].column_names) - {_FILE_COLUMN}:
            odd = sorted(set(table.column_names) ^ (set(tables[0].column_names) - {_FILE_COLUMN}))
            raise UnreadableDataError(
                f"{file} and {files[0]} differ in the columns {', '.join(odd)}",
                hint="all sites need the same columns",
            )
        name = file.name.removesuffix(next(s for s in suffixes if file.name.endswith(s)))
        tables.append(table.append_column(_FILE_COLUMN, pa.array([name] * table.num_rows)))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UnreadableDataError(
            f"the files in {folder} give a column different types: {_without_values(error)}"
        ) from None
