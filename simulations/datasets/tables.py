"""The user's own tables: one CSV or Parquet file with a client column, or a folder with one per client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa

from shoal.common import errors
from shoal.common.config import DataConfig, Scenario
from shoal.common.errors import ConfigError, UnreadableDataError
from shoal.common.schema import Population
from shoal.common.tabular.csv_files import Format, read_csv, without_values
from shoal.common.tabular.tables import read_parquet, to_numbers
from shoal.simulations.datasets.loading import existing_path, spread
from shoal.simulations.datasets.raw import Raw

__all__ = ["load_csv", "load_parquet", "read_csv", "read_parquet"]

_FILE_COLUMN: Final = "file"  # in a folder, the site is the file's name
_CSV_SUFFIXES: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


def load_csv(scenario: Scenario) -> Population:
    """Load a CSV file, or a folder of CSV files, one per client.

    `data.args` may set delimiter, encoding, missing (texts that mean "missing"), and numeric and
    categorical (columns whose kind differs from what their values suggest).
    """
    form = Format.from_args(scenario.data.args)
    return _load(scenario, lambda path: read_csv(path, form), _CSV_SUFFIXES)


def load_parquet(scenario: Scenario) -> Population:
    """Load a Parquet file, or a folder of Parquet files, one per client.

    `data.args` may set numeric and categorical, as for CSV.
    """
    return _load(scenario, read_parquet, (".parquet",))


def _load(scenario: Scenario, read: Callable[[Path], pa.Table], suffixes: tuple[str, ...]) -> Population:
    path = existing_path(scenario)
    data = scenario.data
    table = _read_folder(path, read, suffixes) if path.is_dir() else read(path)
    site = _FILE_COLUMN if path.is_dir() and data.client_column is None else data.client_column
    if _FILE_COLUMN in table.column_names and path.is_dir() and site != _FILE_COLUMN:
        table = table.drop_columns([_FILE_COLUMN])
    kinds = _kinds(data)
    problems = [
        f"data.{key}: {errors.unknown_name('column', name, table.column_names)}"
        for key, name in (
            ("label", data.label),
            ("client_column", site),
            ("text_column", data.text_column),
            *(("args.numeric", name) for name in kinds["numeric"]),
            *(("args.categorical", name) for name in kinds["categorical"]),
        )
        if name is not None and name not in table.column_names
    ]
    if problems and table.num_columns == 1:
        problems.append(
            f"data.args.delimiter: {path} has a single column; set the character that separates its fields"
        )
    if problems or data.label is None:
        raise ConfigError(problems or "data.label: set the name of the column to predict")
    if not table.num_rows:
        raise UnreadableDataError(f"{path} contains no rows")
    for name in kinds["numeric"]:
        table = _replace(table, name, to_numbers(table[name], name, path))
    for name in kinds["categorical"]:
        table = _replace(table, name, table[name].cast(pa.string()))
    return spread(Raw(table, label=data.label, site=site, text=data.text_column), scenario)


def _kinds(data: DataConfig) -> dict[str, list[str]]:
    kinds = {key: data.args.get(key, []) for key in ("numeric", "categorical")}
    problems = [
        f"data.args.{key}: expected a list of column names"
        for key, names in kinds.items()
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names)
    ]
    if problems:
        raise ConfigError(problems)
    return kinds


def _replace(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _read_folder(folder: Path, read: Callable[[Path], pa.Table], suffixes: tuple[str, ...]) -> pa.Table:
    files = sorted(f for f in folder.iterdir() if f.name.endswith(suffixes))
    if not files:
        raise UnreadableDataError(f"{folder} contains no file that ends in {', '.join(suffixes)}")
    tables: list[pa.Table] = []
    for file in files:
        table = read(file)
        odd = sorted(set(table.column_names) ^ set(tables[0].column_names)) if tables else []
        if odd:
            raise UnreadableDataError(
                f"{file} and {files[0]} differ in the columns {', '.join(odd)}",
                hint="all sites need the same columns",
            )
        tables.append(table)
    names = [f.name.removesuffix(next(s for s in suffixes if f.name.endswith(s))) for f in files]
    try:
        # A column that is empty at one site gets its type from the others.
        joined = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UnreadableDataError(
            f"the files in {folder} have different types for the same column: {without_values(error)}",
            hint="list it in data.args.categorical, or fix the file in which it is not numeric",
        ) from None
    sites = [name for name, table in zip(names, tables, strict=True) for _ in range(table.num_rows)]
    if _FILE_COLUMN in joined.column_names:
        return joined  # the files' own column of that name takes precedence
    return joined.append_column(_FILE_COLUMN, pa.array(sites, pa.string()))
