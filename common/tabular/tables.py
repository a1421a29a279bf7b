"""Reads Parquet files, and numbers from columns of any type."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from shoal.common.errors import UnreadableDataError
from shoal.common.tabular.csv_files import without_values


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        UnreadableDataError: it names the file.
    """
    try:
        return parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableDataError(f"{path} cannot be read as Parquet: {without_values(error)}") from None


def to_numbers(column: pa.ChunkedArray, name: str, path: Path | str) -> pa.ChunkedArray:
    """Return a column as float64, missing values as nulls.

    Raises:
        UnreadableDataError: some rows are not numbers; it says how many, and names the first.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.cast(pa.float64())
    number = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
    texts = pc.utf8_trim_whitespace(column)
    odd = pc.indices_nonzero(pc.invert(pc.fill_null(pc.match_substring_regex(texts, number), True)))
    if len(odd):
        raise UnreadableDataError(
            f'{path}: {len(odd)} of {len(column)} rows have no number in column "{name}", '
            f"the first in row {odd[0].as_py() + 1} after the header",
            hint='list the texts that mean "missing" in data.args.missing',
        )
    return texts.cast(pa.float64())
