"""The user's own tables: one CSV or Parquet file with a client column, or a folder with one per client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.common.tabular.csv_files import Format, read_csv, without_values
from shoal.common.tabular.tables import read_parquet
from shoal.simulations.datasets.loading import existing_path, spread_table

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
    hint = None
    if table.num_columns == 1:
        hint = f"data.args.delimiter: {path} has a single column; set the character that separates its fields"
    return spread_table(table, scenario, site=site, where=path, hint=hint)


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
