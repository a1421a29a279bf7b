"""Reads CSV files as text; errors name the file, the line and numbers of fields, never their content.

Every field is read as text. What is a number is decided once, from all rows of all sites
(`simulations/datasets/inference.py`), or by the schema (`common/tabular/reading.py`): if each file decided
for itself, the same rows would mean different things at different sites.
"""

from __future__ import annotations

import csv as python_csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import csv

from shoal.common.errors import ConfigError, UnreadableDataError
from shoal.common.tabular.file_bytes import TextFile, read_text_file
from shoal.common.tabular.file_format import FileFormat

CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt")
_LONGEST_FIELD: Final = 1 << 30  # characters; the default limit of Python's reader is too small for texts
_SEPARATOR_LINE: Final = re.compile(rb'"?sep=(.)"?\r?\n', re.IGNORECASE)  # as Excel writes it
_LOOKS_LIKE_A_VALUE: Final = re.compile(
    r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"
)
_BLOCK_BYTES: Final = 1 << 24  # a row must fit into a block
_LARGEST_BLOCK: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file as read.

    Attributes:
        table: every column as text; an empty field is "".
        notes: what a user should know about how the file was read, one line each.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()


def read_csv(path: Path, form: FileFormat) -> CsvTable:
    """Read a CSV file.

    Raises:
        UnreadableDataError: it names the file and the line, never the content.
    """
    file = read_text_file(path, form.encoding)
    data, delimiter = _without_separator_line(file.data, form.delimiter_of(path))
    names, header_lines = _header(path, data, form, delimiter)
    _refuse_open_quote(path, data, delimiter)
    try:
        table = _rows(path, data, names, header_lines, delimiter)
    except UnreadableDataError as error:
        raise _with_encoding(error, file) from None
    notes = []
    if file.detected:
        notes.append(
            f"{path.name} is not UTF-8 and was read as {file.encoding}, a guess: "
            "set data.args.encoding if texts look wrong"
        )
    if "" in names:
        table = table.drop_columns([""])
        notes.append(f"{path.name}: the column without a name, probably row numbers, was left out")
    return CsvTable(table, tuple(notes))


def _with_encoding(error: UnreadableDataError, file: TextFile) -> UnreadableDataError:
    """Return an error that also says which encoding was guessed."""
    if not file.detected:
        return error
    return UnreadableDataError(f"{error.message}; read as {file.encoding}, a guess", hint=error.hint)


def _without_separator_line(data: bytes, delimiter: str) -> tuple[bytes, str]:
    found = _SEPARATOR_LINE.match(data)
    if found is None:
        return data, delimiter
    # An empty line in its place keeps the numbers of lines, and is no row.
    return b"\n" + data[found.end() :], found[1].decode("latin-1")


def _header(path: Path, data: bytes, form: FileFormat, delimiter: str) -> tuple[list[str], int]:
    """Return the names of the columns, and the lines before the first row."""
    python_csv.field_size_limit(_LONGEST_FIELD)
    reader, first, lines = python_csv.reader(_text(data), delimiter=delimiter), list[str](), 0
    wanted = 1 if form.header is None else form.header
    try:
        for fields in filter(None, reader):
            first, lines = first or fields, lines + 1
            if lines >= wanted:
                break
    except python_csv.Error:
        raise UnreadableDataError(f"{path}, line {reader.line_num}: the header cannot be read") from None
    if not first:
        raise UnreadableDataError(f"{path} is empty")
    if not wanted:
        return _given_names(path, len(first), form), 0
    names = [name.strip() for name in first]
    _refuse_odd_names(path, names, form)
    return names, reader.line_num


def _given_names(path: Path, columns: int, form: FileFormat) -> list[str]:
    """Return the names of the columns of a file without a header."""
    if form.names and len(form.names) != columns:
        raise ConfigError(f"data.args.header: {len(form.names)} names, but {path} has {columns} columns")
    return list(form.names) or [f"c{i + 1}" for i in range(columns)]


def _refuse_odd_names(path: Path, names: Sequence[str], form: FileFormat) -> None:
    """Refuse a header that looks like a row, or in which a name occurs twice; no name is shown."""
    values = looks_like_values(names)
    repeated = [i + 1 for i, name in enumerate(names) if name in names[:i]]
    if form.header is None and (2 * values >= len(names) or (values and repeated)):
        raise no_header(path, names)
    if repeated:
        raise UnreadableDataError(
            f"{path}: the name of column {', '.join(map(str, repeated))} occurs before in the header",
            hint="each column needs a name of its own; if the first line is a row, set "
            "data.args.header = false",
        )


def no_header(path: Path | str, names: Sequence[str]) -> UnreadableDataError:
    """Return the error for a file whose first line looks like a row."""
    return UnreadableDataError(
        f"{path} seems to have no header: {looks_like_values(names)} of the {len(names)} names in its first "
        "line are numbers or dates",
        hint='set data.args.header = false, or give the names, e.g. header = ["site", "age"]; '
        "header = true if they are names",
    )


def looks_like_values(names: Sequence[str]) -> int:
    """Return how many names of columns look like numbers or dates."""
    return sum(bool(_LOOKS_LIKE_A_VALUE.fullmatch(name)) for name in names)


def _rows(path: Path, data: bytes, names: list[str], header_lines: int, delimiter: str) -> pa.Table:
    bad: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    start = _offset(data, header_lines)
    if not data[start:].strip():
        return pa.table({name: pa.array([], pa.string()) for name in names})
    try:
        table = csv.read_csv(
            pa.BufferReader(pa.py_buffer(memoryview(data)[start:])),
            parse_options=csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
            # With one thread, the parser knows the number of a bad row.
            read_options=csv.ReadOptions(
                use_threads=False,
                column_names=names,
                block_size=min(max(_BLOCK_BYTES, len(data) - start + 1), _LARGEST_BLOCK),
            ),
        )
    except pa.ArrowException:
        raise UnreadableDataError(
            f"{path} cannot be read as CSV", hint="check the separator (data.args.delimiter) and the quotes"
        ) from None
    if bad:
        raise _wrong_fields(path, data, header_lines, delimiter, bad)
    return table


def _offset(data: bytes, lines: int) -> int:
    """Return where the first row starts."""
    start = 0
    for _ in range(lines):
        end = data.find(b"\n", start)
        if end < 0:
            return len(data)
        start = end + 1
    return start


def _wrong_fields(
    path: Path, data: bytes, header_lines: int, delimiter: str, bad: list[csv.InvalidRow]
) -> UnreadableDataError:
    first = bad[0]
    line = _line_of_row(data, header_lines, delimiter, first.number)
    more = f" (and {len(bad) - 1} more such lines)" if len(bad) > 1 else ""
    return UnreadableDataError(
        f"{path}, line {line}: {first.actual_columns} fields, expected {first.expected_columns}{more}",
        hint="put quotes around text that contains the separator",
    )


def _line_of_row(data: bytes, header_lines: int, delimiter: str, row: int) -> int:
    """Return the line at which a row starts; both count from 1, and empty lines are not rows."""
    text = _text(data[_offset(data, header_lines) :])
    reader = python_csv.reader(text, delimiter=delimiter)
    seen, start = 0, 1
    try:
        for fields in reader:
            seen += bool(fields)
            if seen == row:
                break
            start = reader.line_num + 1
    except python_csv.Error:
        pass
    return header_lines + start


def _refuse_open_quote(path: Path, data: bytes, delimiter: str) -> None:
    """Refuse a quote that is never closed: Arrow would read the rest of the file as one text.

    Quotes come in pairs, so only a file with an odd number of them is read a second time.
    """
    if data.count(b'"') % 2 == 0:
        return
    start = 1
    try:
        reader = python_csv.reader(_text(data), delimiter=delimiter, strict=True)
        for _ in reader:
            start = reader.line_num + 1
    except python_csv.Error as error:
        if "unexpected end of data" in str(error):
            raise UnreadableDataError(
                f"{path}, line {start}: a quote is opened but never closed",
                hint="close it, or double it if it is part of the text",
            ) from None


def _text(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
