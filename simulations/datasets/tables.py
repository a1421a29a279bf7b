"""The user's own tables: one CSV or Parquet file with a client column, or a folder with one per client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.common.tabular.csv_files import CSV_SUFFIXES
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import PARQUET_SUFFIXES, FileTable, read_table, stem_and_suffix
from shoal.common.tabular.values import is_text, plain
from shoal.simulations.datasets.loading import existing_path, spread_table

_FILE_COLUMN: Final = "file"  # in a folder, the site is the file's name
_SYSTEM_FILES: Final = ("thumbs.db", "desktop.ini")


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
    entries = sorted(f for f in folder.iterdir() if f.is_file())
    ours = [f for f in entries if not _is_system_file(f)]
    files = [f for f in ours if stem_and_suffix(f)[1] in suffixes]
    if not files:
        raise UnreadableDataError(f"{folder} contains no file that ends in {', '.join(suffixes)}")
    tables = [read_table(file, form) for file in files]
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
    sites = _names(files)
    joined = _joined([found.table.select(first) for found in tables])
    if _FILE_COLUMN not in joined.column_names:  # otherwise it is the files' own
        column = [
            name for name, found in zip(sites, tables, strict=True) for _ in range(found.table.num_rows)
        ]
        joined = joined.append_column(_FILE_COLUMN, pa.array(column, pa.string()))
    return FileTable(joined, tables[0].typed, tuple(notes))


def _is_system_file(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in _SYSTEM_FILES


def _names(files: Sequence[Path]) -> list[str]:
    """Return the names of sites: the files' without suffixes, or with them where two would be equal."""
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
