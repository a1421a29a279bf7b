"""Reads a table's file, and its rows by a schema: the same in a simulation, at a site and for a prediction.

A column is read by its kind in the schema. No value decides how another is read, so a row means the same
alone and in company.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from shoal.common.errors import DataError, UnreadableDataError, nearest
from shoal.common.schema import Column, Schema
from shoal.common.tabular.csv_files import CSV_SUFFIXES, looks_like_values, no_header, read_csv
from shoal.common.tabular.file_bytes import COMPRESSED
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.values import (
    is_text,
    plain,
    refuse_infinite,
    to_numbers,
    to_texts,
    without_separators,
)

PARQUET_SUFFIXES: Final = (".parquet", ".pq")
TABLE_SUFFIXES: Final = (*CSV_SUFFIXES, *PARQUET_SUFFIXES)


@dataclass(frozen=True, slots=True)
class FileTable:
    """A table as its file holds it.

    Attributes:
        table: the columns; typed: whether their types are those of the file, as in Parquet. If not, all
            are text, as in CSV.
        notes: what a user should know about how it was read, one line each.
    """

    table: pa.Table
    typed: bool
    notes: tuple[str, ...] = ()


def stem_and_suffix(path: Path) -> tuple[str, str]:
    """Return a file's name without suffixes, and its suffix in lower case, without that of compression."""
    name = path.name
    if path.suffix.lower() in COMPRESSED:
        name = name[: -len(path.suffix)]
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if dot and stem else (name, "")


def read_table(path: Path, form: FileFormat) -> FileTable:
    """Read a CSV or Parquet file, by its suffix; a file with another one is read as CSV.

    Raises:
        UnreadableDataError: it names the file, and the line where there is one; never the content.
    """
    _, suffix = stem_and_suffix(path)
    if not path.is_file():
        raise UnreadableDataError(f"{path} does not exist")
    if suffix in PARQUET_SUFFIXES:
        return FileTable(read_parquet(path), typed=True)
    if suffix in (".xlsx", ".xls", ".ods"):
        raise UnreadableDataError(f"{path} is a spreadsheet", hint="save it as CSV in UTF-8")
    found = read_csv(path, form)
    return FileTable(found.table, typed=False, notes=found.notes)


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        UnreadableDataError: it names the file.
    """
    try:
        # partitioning=None: folders named like "site=a" above a single file are no columns of it.
        with path.open("rb") as file:
            return parquet.read_table(file, partitioning=None)
    except (pa.ArrowException, OSError):
        raise UnreadableDataError(f"{path} cannot be read as Parquet") from None


def lacking_columns(
    found: FileTable, wanted: Iterable[str], form: FileFormat, where: Path | str
) -> list[str]:
    """Return a problem for each wanted column that a table lacks.

    Of the table's own names only a near one is shown: they may be the first row of a file without header.

    Args:
        found: the table; wanted: names of columns; form: of the file.
        where: what errors say about where the rows come from.

    Raises:
        UnreadableDataError: a column is lacking, and the first line looks like a row.
    """
    names = found.table.column_names
    lacking = [name for name in wanted if name not in names]
    if lacking and not found.typed and form.header is None and looks_like_values(names):
        raise no_header(where, names)
    near = {name: nearest(name, names) for name in lacking}
    return [
        f'unknown column "{name}" among the {len(names)} columns.'
        + (f' Did you mean "{near[name]}"?' if near[name] else "")
        for name in lacking
    ]


def read_columns(
    table: pa.Table, schema: Schema, form: FileFormat, where: Path | str
) -> dict[str, NDArray[Any]]:
    """Return the inputs of rows by their kinds, as `Column` describes them.

    Args:
        table: holds every column of the schema; form: of the file.
        where: what errors say about where the rows come from.

    Raises:
        UnreadableDataError: a numeric column holds something else; it gives column and row.
    """
    return {column.name: _by_kind(table[column.name], column, form, where) for column in schema.columns}


def _by_kind(values: pa.ChunkedArray, column: Column, form: FileFormat, where: Path | str) -> NDArray[Any]:
    if column.kind == "numeric":
        numbers = np.asarray(to_numbers(values, column.name, where, form).to_numpy(), np.float64)
        refuse_infinite(numbers, column.name, where)
        return numbers
    texts = to_texts(values, form, trim=column.kind == "categorical")
    if column.kind == "text":
        texts = pc.fill_null(texts, "")
    return np.asarray(texts.to_numpy(zero_copy_only=False), object)


def read_labels(
    values: pa.ChunkedArray, schema: Schema, form: FileFormat, where: Path | str, *, rest: bool = False
) -> NDArray[Any]:
    """Return labels as in `Shard`.

    Args:
        values: the label column; schema: names the classes; form: of the file.
        where: what errors say about where the rows come from.
        rest: whether every other label stands for class 0, as with data.positive.

    Raises:
        DataError: labels are missing, are no class of the schema, or no numbers for a regression.
    """
    texts = to_texts(values, form)
    if texts.null_count:
        raise DataError(
            f'{where}: {texts.null_count} of {len(texts)} rows have no label in "{schema.label}"',
            hint="remove these rows, or set data.args.drop_missing_labels = true",
        )
    if schema.task == "regression":
        return np.asarray(to_numbers(values, schema.label, where, form).to_numpy(), np.float32)
    index = {name: k for k, name in enumerate(schema.classes)}
    found = class_names(values, form, schema.classes)
    codes = np.fromiter((index.get(str(name), 0 if rest else -1) for name in found), np.int32, len(found))
    unknown = int((codes < 0).sum())
    if unknown:
        raise DataError(
            f'{where}: {unknown} of {len(found)} rows have a label in "{schema.label}" that is not one of '
            f"the {len(index)} classes of the schema"
        )
    return codes


def class_names(values: pa.ChunkedArray, form: FileFormat, classes: tuple[str, ...] = ()) -> list[str | None]:
    """Return the class that each label names: the number 1 is the class "1", also as 1.0 or "1.0".

    Args:
        values: labels; form: of the file.
        classes: names that are taken literally where they occur, such as "1.0".
    """
    texts = to_texts(plain(values), form)
    unique = pc.unique(texts)
    numbers = without_separators(unique, form) if is_text(plain(values).type) else unique
    known = {
        text: text if text in classes else _canonical(number)
        for text, number in zip(unique.to_pylist(), numbers.to_pylist(), strict=True)
    }
    return [known[text] for text in texts.to_pylist()]


def _canonical(text: str | None) -> str | None:
    """Return a whole number without decimals; other texts as they are."""
    if text is None:
        return None
    head, point, decimals = text.partition(".")
    whole = point and not decimals.strip("0") and head.lstrip("+-").isdigit()
    return head if whole else text
