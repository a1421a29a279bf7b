"""Reads CSV files; errors name the line that cannot be read, never its content."""

from __future__ import annotations

import codecs
import csv as python_csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import csv

from shoal.common.errors import ConfigError, UnreadableDataError

_MISSING: Final = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
_LONGEST_FIELD: Final = (
    1 << 30
)  # characters; the default limit of Python's reader is too small for long texts


@dataclass(frozen=True, slots=True)
class Format:
    """The format of a CSV file.

    Attributes:
        delimiter: the character between fields; `None` means a tab for .tsv files, otherwise a comma.
        encoding: a name known to Python, e.g. "utf-8" or "gbk".
        missing: texts that mean "missing", in addition to the usual ones.
    """

    delimiter: str | None = None
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Format:
        """Read data.args.

        Raises:
            ConfigError: a value is invalid.
        """
        delimiter, encoding = args.get("delimiter"), args.get("encoding", "utf-8")
        missing = args.get("missing", [])
        problems = []
        if delimiter is not None and not (isinstance(delimiter, str) and len(delimiter) == 1):
            problems.append(f"data.args.delimiter: expected one character, got {delimiter!r}")
        if not _is_encoding(encoding):
            problems.append(f'data.args.encoding: expected an encoding such as "utf-8", got {encoding!r}')
        if not isinstance(missing, list | tuple) or not all(isinstance(text, str) for text in missing):
            problems.append("data.args.missing: expected a list of texts")
        if problems:
            raise ConfigError(problems)
        return cls(delimiter, encoding, tuple(missing))

    def sign(self, path: Path) -> str:
        """Return the character between the fields of a file."""
        return self.delimiter or ("\t" if ".tsv" in path.suffixes else ",")


def _is_encoding(name: object) -> bool:
    try:
        codecs.lookup(str(name))
    except LookupError:
        return False
    return isinstance(name, str)


def read_csv(path: Path, form: Format = Format()) -> pa.Table:
    """Read a CSV file with a header line; `.gz` files are decompressed.

    Raises:
        UnreadableDataError: it names the file and the line, never the content.
    """
    bad: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(
                delimiter=form.sign(path), newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True, null_values=[*_MISSING, *form.missing]
            ),
            # With one thread, the parser knows the number of a bad row.
            read_options=csv.ReadOptions(use_threads=False, encoding=form.encoding),
        )
    except UnicodeDecodeError:
        raise _wrong_encoding(path, form) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableDataError(f"{path} cannot be read as CSV: {without_values(error)}") from None
    if bad:
        raise _wrong_fields(path, form, bad)
    if not _is_text(table):
        raise _wrong_encoding(path, form)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise UnreadableDataError(f"{path} has more than one column {', '.join(map(repr, twice))}")
    _refuse_open_quote(path, form)
    return table


def _is_text(table: pa.Table) -> bool:
    """Whether Arrow could decode names and texts; it keeps invalid UTF-8 as bytes."""
    try:
        table.column_names  # noqa: B018  it decodes
    except UnicodeDecodeError:
        return False
    return not any(pa.types.is_binary(kind) for kind in table.schema.types)


def without_values(error: Exception) -> str:
    """Return the beginning of Arrow's message: quoted text, or text at the end, may be a value."""
    head = str(error).splitlines()[0] if str(error) else type(error).__name__
    before_value, quote, _ = head.partition("'")
    return (
        before_value.rpartition(":")[0] if quote and ":" in before_value else head.partition("'")[0].strip()
    )


def _wrong_encoding(path: Path, form: Format) -> UnreadableDataError:
    line = next((n for n, raw in enumerate(_raw_lines(path), 1) if not _decodes(raw, form.encoding)), None)
    place = "" if line is None else f", line {line}"
    return UnreadableDataError(
        f"{path}{place}: not valid {form.encoding.upper()}",
        hint='save it as UTF-8, or set its encoding, e.g. data.args.encoding = "gbk" or "latin-1"',
    )


def _wrong_fields(path: Path, form: Format, bad: list[csv.InvalidRow]) -> UnreadableDataError:
    first = bad[0]
    line = _line_of_row(path, form, first.number)
    more = f" (and {len(bad) - 1} more such lines)" if len(bad) > 1 else ""
    return UnreadableDataError(
        f"{path}, line {line}: {first.actual_columns} fields, expected {first.expected_columns}{more}",
        hint="put quotes around text that contains the separator",
    )


def _line_of_row(path: Path, form: Format, row: int) -> int:
    """Return the line at which a row starts; both count from 1, and empty lines are not rows."""
    seen, start = 0, 1
    try:
        with _open_text(path, form) as lines:
            reader = python_csv.reader(lines, delimiter=form.sign(path))
            for fields in reader:
                seen += bool(fields)
                if seen == row:
                    return start
                start = reader.line_num + 1
    except (python_csv.Error, UnicodeDecodeError):
        pass
    return row


def _refuse_open_quote(path: Path, form: Format) -> None:
    """Refuse a quote that is never closed: Arrow would read the rest of the file as one text.

    Quotes come in pairs, so only a file with an odd number of them is read a second time.
    """
    if sum(raw.count(b'"') for raw in _raw_lines(path)) % 2 == 0:
        return
    start = 1
    try:
        with _open_text(path, form) as lines:
            reader = python_csv.reader(lines, delimiter=form.sign(path), strict=True)
            for _ in reader:
                start = reader.line_num + 1
    except python_csv.Error as error:
        if "unexpected end of data" in str(error):
            raise UnreadableDataError(
                f"{path}, line {start}: a quote is opened but never closed",
                hint="close it, or double it if it is part of the text",
            ) from None


def _open_text(path: Path, form: Format) -> Any:
    python_csv.field_size_limit(_LONGEST_FIELD)
    encoding = "utf-8-sig" if form.encoding.lower().replace("_", "-") == "utf-8" else form.encoding
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _raw_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
