"""A data set as read, before its rows are divided among clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray


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
    """

    table: pa.Table
    label: str
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    site: str | None = None
    text: str | None = None
    positive: str | None = None
    classes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
