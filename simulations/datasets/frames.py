"""Data frames of any library as Arrow tables; none of these libraries is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from shoal.common.errors import DataError
from shoal.common.tabular.values import plain


def is_frame(data: object) -> bool:
    """Return whether something is a data frame, an Arrow table, or a mapping of columns."""
    arrow = hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")
    return arrow or isinstance(data, Mapping) or (hasattr(data, "columns") and hasattr(data, "to_numpy"))


def as_table(frame: Any, where: str) -> pa.Table:
    """Return a frame as a table of its columns; an index is not one of them.

    Args:
        frame: of pandas, Polars or pyarrow; anything else with the Arrow PyCapsule interface, or with
            `columns` and items that have `to_numpy`; or a mapping of column names to arrays (rows,).
        where: what errors say about where it comes from.

    Raises:
        DataError: columns differ in length, or hold values of mixed or unknown types.
    """
    try:
        return _plain(_to_arrow(frame))
    except (pa.ArrowException, TypeError, ValueError):
        raise DataError(
            f"{where}: a column holds values of mixed or unknown types",
            hint="expected numbers, texts or true/false in each column",
        ) from None


def _to_arrow(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    if type(frame).__module__.partition(".")[0] == "pandas":
        # Its own Arrow interface would add the index as a column.
        return pa.Table.from_pandas(frame, preserve_index=False)
    if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
        return pa.table(frame)
    if not isinstance(frame, Mapping):
        frame = {name: frame[name].to_numpy() for name in frame.columns}
    columns = {str(name): np.asarray(values) for name, values in frame.items()}
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def _plain(table: pa.Table) -> pa.Table:
    """Return a table with texts for names, and plain columns for dictionaries and views of texts."""
    return pa.table([plain(column) for column in table.columns], names=[str(n) for n in table.column_names])
