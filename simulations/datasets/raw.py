"""A data set as read, before its rows are divided among clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray

from shoal.common.tabular.file_format import FileFormat


@dataclass(frozen=True, slots=True)
class Raw:
    """Rows of all clients.

    Attributes:
        table: the scalar columns: inputs, the label, the site.
        label: name of the label column in `table`.
        tensors: image or sequence inputs, (rows, ...); the table then contains no inputs.
        site: name of the column with the site of each row, or `None`.
        text: name of the text input, which is then the only one; or `None`.
        positive: label value that makes the task binary, against all others; or `None`.
        classes: names of the integer labels 0, 1, …, if the data have names; else empty.
        exclude: columns that are never inputs.
        typed: whether the types of columns are the source's own; otherwise all are text, as in CSV.
        format: of the source; kinds: "numeric" or "categorical" for columns that the user decided.
        where: what errors say about where the rows come from.
        notes: what a user should know about how the rows were read, one line each.
    """

    table: pa.Table
    label: str
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    site: str | None = None
    text: str | None = None
    positive: str | None = None
    classes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    typed: bool = True
    format: FileFormat = field(default_factory=FileFormat)
    kinds: Mapping[str, Literal["numeric", "categorical"]] = field(default_factory=dict)
    where: str = "the data"
    notes: tuple[str, ...] = ()
