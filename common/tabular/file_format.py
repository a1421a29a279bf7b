"""How a table is written in a file: separators, encoding, header, and what means "missing"."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shoal.common.errors import ConfigError

# Fields that mean "missing" in every file, also in text columns of Parquet: a site that writes its rows to
# CSV must get the same rows back.
MISSING: Final = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")

# The entries of data.args that describe a file, and may differ from one site to the next.
FORMAT_ARGUMENTS: Final = ("delimiter", "encoding", "missing", "decimal", "thousands", "header")


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The format of a table's file; only `missing`, `decimal` and `thousands` matter outside CSV.

    Attributes:
        delimiter: the character between fields; `None` means a tab for .tsv files, otherwise a comma.
        encoding: a name known to Python, e.g. "utf-8" or "gbk"; `None` means that it is detected.
        missing: fields that mean "missing", in addition to `MISSING`.
        decimal: the decimal separator, "." or ",".
        thousands: the separator between groups of three digits; "" for none.
        header: lines before the first row, of which the first holds the names; 0 if there is none, so
            that the columns are c1, c2, …; `None` for one line, unless it looks like a row.
        names: names of the columns where the file has none; empty to number them.
    """

    delimiter: str | None = None
    encoding: str | None = None
    missing: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    header: int | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> FileFormat:
        """Read data.args, which may hold entries that are not about the format.

        Raises:
            ConfigError: it lists every invalid value.
        """
        given = {name: args[name] for name in FORMAT_ARGUMENTS if name in args}
        problems = list(_problems(given))
        if problems:
            raise ConfigError(problems)
        header = given.get("header")
        named = isinstance(header, list | tuple)
        return cls(
            given.get("delimiter"),
            given.get("encoding"),
            tuple(given.get("missing", ())),
            given.get("decimal", "."),
            given.get("thousands", ""),
            0 if named else None if header is None else int(header),
            tuple(header) if isinstance(header, list | tuple) else (),
        )

    def delimiter_of(self, path: Path) -> str:
        """Return the character between the fields of a file."""
        return self.delimiter or ("\t" if ".tsv" in [s.lower() for s in path.suffixes] else ",")


def _problems(given: Mapping[str, Any]) -> list[str]:
    """Return one line for each invalid value."""
    found = []
    delimiter, encoding = given.get("delimiter"), given.get("encoding")
    if delimiter is not None and not (isinstance(delimiter, str) and len(delimiter) == 1):
        found.append(f"data.args.delimiter: expected one character, got {delimiter!r}")
    if encoding is not None and not _is_encoding(encoding):
        found.append(f'data.args.encoding: expected an encoding such as "utf-8", got {encoding!r}')
    if not _are_texts(given.get("missing", [])):
        found.append("data.args.missing: expected a list of texts")
    decimal, thousands = given.get("decimal", "."), given.get("thousands", "")
    if decimal not in (".", ","):
        found.append(f'data.args.decimal: expected "." or ",", got {decimal!r}')
    if thousands not in ("", ".", ",", " ", "'", "\u00a0", "\u202f"):
        found.append(f'data.args.thousands: expected ".", ",", " " or "\'", got {thousands!r}')
    elif thousands == decimal:
        found.append(f"data.args.thousands: {thousands!r} is the decimal separator already")
    header = given.get("header", True)
    if not (isinstance(header, int) and header in (0, 1, 2, 3)) and not (_are_texts(header) and header):
        found.append(
            "data.args.header: expected true (names in the first line), false (no names), the number of "
            f"header lines up to 3, or a list of names; got {header!r}"
        )
    return found


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _is_encoding(name: object) -> bool:
    try:
        return isinstance(name, str) and bool(codecs.lookup(name)._is_text_encoding)
    except LookupError:
        return False
