"""The user's own tables: one CSV or Parquet file with a client column, or a folder of such files.

In a folder, each file has the rows of a client; or, as Hive and Spark write them, folders named "site=north"
say which client, or any other column, the files within have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.common.tabular.csv_files import CSV_SUFFIXES
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import PARQUET_SUFFIXES, FileTable, read_table, stem_and_suffix
from shoal.common.tabular.values import is_text, plain
from shoal.simulations.datasets.loading import existing_path, spread_table
from shoal.simulations.datasets.table import NO_SITE

_FILE_COLUMN: Final = "file"  # in a folder, the site is the file's name
_SYSTEM_FILES: Final = ("thumbs.db", "desktop.ini", "_success", "_metadata", "_common_metadata")
_NULL: Final = "__HIVE_DEFAULT_PARTITION__"  # the folder of rows whose value is missing, as Hive names it


def load_csv(scenario: Scenario) -> Population:
    """Load a CSV file, or a folder of CSV files, one per client.

    `data.args` may set how the files are written (`FileFormat`), drop_missing_labels, and numeric and
    categorical: columns whose kind the user decides.
    """
    return _load(scenario, CSV_SUFFIXES)


def load_parquet(scenario: Scenario) -> Population:
    """Load a Parquet file, or a folder of Parquet files, one per client; `data.args` as for CSV."""
    return _load(scenario, PARQUET_SUFFIXES)


def _load(scenario: Scenario, suffixes: tuple[str, ...]) -> Population:
    path = existing_path(scenario)
    data, form = scenario.data, FileFormat.from_args(scenario.data.args)
    found = _read_folder(path, form, suffixes) if path.is_dir() else _read_file(path, form, suffixes)
    names = found.table.column_names
    site = _FILE_COLUMN if path.is_dir() and data.client_column is None else data.client_column
    if _FILE_COLUMN in names and path.is_dir() and site != _FILE_COLUMN:
        found = FileTable(found.table.drop_columns([_FILE_COLUMN]), found.typed, found.notes)
    hint = None
    if len(names) == 1:
        hint = f"data.args.delimiter: {path} has a single column; set the character that separates its fields"
    return spread_table(found, scenario, site=site, where=path, hint=hint)


def _read_file(path: Path, form: FileFormat, suffixes: tuple[str, ...]) -> FileTable:
    other = PARQUET_SUFFIXES if suffixes == CSV_SUFFIXES else CSV_SUFFIXES
    suffix = stem_and_suffix(path)[1]
    if suffix in other:
        source = "parquet" if other == PARQUET_SUFFIXES else "csv"
        raise UnreadableDataError(
            f"data.path: {path} ends in {suffix}, expected {suffixes[0]}", hint=f'data.source = "{source}"'
        )
    return read_table(path, form)


def _read_folder(folder: Path, form: FileFormat, suffixes: tuple[str, ...]) -> FileTable:
    entries = sorted([*(f for f in folder.iterdir() if f.is_file()), *_within_partitions(folder)])
    ours = [f for f in entries if not _is_system_file(f)]
    files = [f for f in ours if stem_and_suffix(f)[1] in suffixes]
    if not files:
        raise UnreadableDataError(f"{folder} contains no file that ends in {', '.join(suffixes)}")
    tables = [_with_partitions(read_table(file, form), file.relative_to(folder)) for file in files]
    first = tables[0].table.column_names
    for file, found in zip(files[1:], tables[1:], strict=True):
        odd = set(found.table.column_names) ^ set(first)
        if odd:
            raise UnreadableDataError(
                f"{file} and {files[0]} differ in {len(odd)} of their columns",
                hint="all sites need the same columns, and the same data.args.header",
            )
    notes = [note for found in tables for note in found.notes]
    notes += [
        f"ignored in {folder.name}: {count} {what}"
        for count, what in (
            (len(entries) - len(ours), "system files"),
            (len(ours) - len(files), "other files"),
        )
        if count
    ]
    sites = _names([file.relative_to(folder) for file in files])
    joined = _joined([found.table.select(first) for found in tables])
    if _FILE_COLUMN not in joined.column_names:  # otherwise it is the files' own
        column = [
            name for name, found in zip(sites, tables, strict=True) for _ in range(found.table.num_rows)
        ]
        joined = joined.append_column(_FILE_COLUMN, pa.array(column, pa.string()))
    return FileTable(joined, tables[0].typed, tuple(notes))


def _within_partitions(folder: Path) -> list[Path]:
    """Return the files of a folder that is divided into folders named key=value."""
    parts = [part for part in folder.iterdir() if part.is_dir() and "=" in part.name]
    return sorted(file for part in parts for file in part.rglob("*") if file.is_file())


def _partitions(file: Path) -> dict[str, str | None]:
    """Return the columns that the names of a file's folders give, e.g. {"site": "north"}."""
    pairs = (part.partition("=") for part in file.parts[:-1])
    return {unquote(key): None if value == _NULL else unquote(value) for key, _, value in pairs}


def _with_partitions(found: FileTable, file: Path) -> FileTable:
    """Add the columns that the names of a file's folders give."""
    table = found.table
    for name, value in _partitions(file).items():
        if name in table.column_names:
            raise UnreadableDataError(f'{file} has a column "{name}" inside, and in the name of its folder')
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    return FileTable(table, found.typed, found.notes)


def _is_system_file(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in _SYSTEM_FILES


def _names(files: Sequence[Path]) -> list[str]:
    """Return the names of sites, from paths below the folder.

    They are the values in the first folders' names, or the files' names: without suffixes, or with them where
    two would be equal.
    """
    if all(len(file.parts) > 1 for file in files):
        return [next(iter(_partitions(file).values())) or NO_SITE for file in files]
    stems = [stem_and_suffix(file)[0] for file in files]
    return [stem if stems.count(stem) == 1 else file.name for stem, file in zip(stems, files, strict=True)]


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all sites; a column that is text at one site is text at all."""
    columns = {}
    for name in tables[0].column_names:
        parts = [plain(table[name]) for table in tables]
        if any(is_text(part.type) for part in parts) and not all(is_text(part.type) for part in parts):
            parts = [part.cast(pa.string()) for part in parts]
        columns[name] = parts
    aligned = [pa.table({name: parts[k] for name, parts in columns.items()}) for k in range(len(tables))]
    try:
        # A column that is empty at one site gets its type from the others.
        return pa.concat_tables(aligned, promote_options="permissive")
    except pa.ArrowException:
        kinds = {name: {str(part.type) for part in parts} for name, parts in columns.items()}
        odd = [f'"{name}" ({", ".join(sorted(found))})' for name, found in kinds.items() if len(found) > 1]
        raise UnreadableDataError(
            f"the files have different types for the same column: {', '.join(odd)}",
            hint="convert it to one type at all sites, or leave it out with data.exclude",
        ) from None
