"""Turns columns as read into numbers and texts; errors give rows and counts, never a value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shoal.common.errors import UnreadableDataError
from shoal.common.tabular.file_format import MISSING, FileFormat

NUMBER: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without an encoding of its values: no dictionary, no view of texts."""
    if pa.types.is_dictionary(column.type):
        return plain(column.cast(column.type.value_type))
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def to_texts(column: pa.ChunkedArray, form: FileFormat, *, trim: bool = True) -> pa.ChunkedArray:
    """Return a column as text, missing values as nulls.

    Args:
        column: texts, numbers or true/false; form: says what means "missing".
        trim: whether white space around a text is removed, as for categories but not for free text.

    Raises:
        UnreadableDataError: its type has no text.
    """
    column = plain(column)
    if not is_text(column.type):
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        return _cast(column, pa.string())
    if trim:
        column = pc.utf8_trim_whitespace(column)
    absent = pc.is_in(column, value_set=pa.array([*MISSING, *form.missing], column.type))
    return pc.if_else(absent, None, column)


def to_numbers(column: pa.ChunkedArray, name: str, where: Path | str, form: FileFormat) -> pa.ChunkedArray:
    """Return a column as float64, missing values as nulls.

    Raises:
        UnreadableDataError: some rows are not numbers; it says how many, and which is the first.
    """
    column = plain(column)
    if not is_text(column.type):
        return _cast(column, pa.float64())
    texts = without_separators(to_texts(column, form), form)
    odd = pc.indices_nonzero(pc.invert(pc.fill_null(pc.match_substring_regex(texts, NUMBER), True)))
    if len(odd):
        raise UnreadableDataError(
            f'{where}: {len(odd)} of {len(column)} rows have no number in column "{name}", '
            f"the first in row {odd[0].as_py() + 1} after the header",
            hint='list the texts that mean "missing" in data.args.missing'
            + (', or set data.args.decimal = ","' if form.decimal == "." else ""),
        )
    return texts.cast(pa.float64())


def without_separators(texts: pa.ChunkedArray, form: FileFormat) -> pa.ChunkedArray:
    """Return numbers as Python writes them: no separator of thousands, and a point before decimals.

    Text that is no number in this format becomes no number: "1,5" stays as it is where "," is neither.
    """
    if form.thousands:
        t, d = re.escape(form.thousands), re.escape(form.decimal)
        grouped = pc.match_substring_regex(texts, rf"^[+-]?\d{{1,3}}({t}\d{{3}})+({d}\d*)?$")
        texts = pc.if_else(grouped, pc.replace_substring(texts, form.thousands, ""), texts)
    if form.decimal == ",":
        points = pc.match_substring(texts, ".")
        texts = pc.if_else(points, pc.binary_join_element_wise("#", texts, ""), texts)
        texts = pc.replace_substring(texts, ",", ".")
    return texts


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        if pa.types.is_decimal(column.type) and pa.types.is_string(kind):
            column = column.cast(pa.float64())
        return column.cast(kind)
    except pa.ArrowException:
        wanted = "numbers" if pa.types.is_floating(kind) else "text"
        raise UnreadableDataError(
            f"a column of type {column.type} cannot be read as {wanted}",
            hint="convert it in the file, or leave it out with data.exclude",
        ) from None


def refuse_infinite(numbers: NDArray[np.float64], name: str, where: Path | str = "") -> None:
    """Refuse infinite numbers of a column.

    Raises:
        UnreadableDataError: it gives the column and the number of rows.
    """
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        raise UnreadableDataError(
            f"{where}{': ' if where else ''}{infinite} of {len(numbers)} rows have an infinite number in "
            f'column "{name}"',
            hint="replace it with a finite number, or leave the field empty (missing)",
        )
