"""The shapes of data from raw columns to the model: schema, a client's shard, the encoded input.

A `Schema` contains names and kinds of columns and the names of the classes, which all sites of a
federation must agree on before they can train together. It never contains any other value of a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

ColumnKind = Literal["numeric", "categorical", "text", "image", "sequence"]
Task = Literal["binary", "multiclass", "regression"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Column:
    """One raw input column.

    Attributes:
        name: unique within the schema.
        kind: type of the values. In a `Shard` the column is then an array of
            numeric: float64 (rows,), NaN where missing;
            categorical: object (rows,) of `str`, `None` where missing;
            text: object (rows,) of `str`;
            image: uint8 or float32 (rows, height, width, channels);
            sequence: float32 (rows, steps, channels).
        shape: shape of one row's value; `()` for numeric, categorical and text.
    """

    name: str
    kind: ColumnKind
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """What a row looks like, shared by every client of a federation.

    Attributes:
        columns: the inputs, in a fixed order. Either any mix of numeric and categorical columns, or
            exactly one text, image or sequence column.
        task: type of the learning task.
        classes: the class names, by class index; empty for regression. For a binary task the
            positive class is `classes[1]`.
        label: name of the label column.
    """

    columns: tuple[Column, ...]
    task: Task
    classes: tuple[str, ...]
    label: str

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)

    @property
    def kind(self) -> Literal["tabular", "text", "image", "sequence"]:
        """The one modality of this schema."""
        first = self.columns[0].kind
        return "tabular" if first in ("numeric", "categorical") else first  # type: ignore[return-value]

    def names(self, kind: ColumnKind) -> tuple[str, ...]:
        """Names of the columns of one kind, in schema order."""
        return tuple(c.name for c in self.columns if c.kind == kind)

    def to_json(self) -> str:
        """Serialise to JSON; `from_json` reads it back."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Read JSON that `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        columns = tuple(Column(c["name"], c["kind"], tuple(c["shape"])) for c in raw["columns"])
        return cls(columns, raw["task"], tuple(raw["classes"]), raw["label"])


@dataclass(frozen=True, slots=True)
class Shard:
    """Raw rows of one client, or of one of its splits. A shard never leaves the client.

    Attributes:
        columns: column name → array, as `Column.kind` describes; equal first dimension.
        labels: int32 class indices (rows,), or float32 targets (rows,) for regression.
    """

    columns: Mapping[str, NDArray[Any]]
    labels: NDArray[Any]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def take(self, indices: NDArray[np.integer[Any]]) -> Shard:
        """Return the rows at `indices`, in that order."""
        return Shard({k: v[indices] for k, v in self.columns.items()}, self.labels[indices])


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The encoded input of a model: one array of shape (rows, *shape).

    Attributes:
        kind: vector (float32 features), tokens (int32 ids, 0 is padding, 1 is unknown),
            image (float32 in [0, 1]) or sequence (float32, standardised).
        shape: shape of one row.
        vocabulary_size: number of token ids including padding and unknown; 0 unless tokens.
    """

    kind: Literal["vector", "tokens", "image", "sequence"]
    shape: tuple[int, ...]
    vocabulary_size: int = 0

    @property
    def dtype(self) -> str:
        """Numpy dtype name of the encoded array."""
        return "int32" if self.kind == "tokens" else "float32"


class Population(Protocol):
    """All clients of a simulation. A client uses no memory until its shard is loaded."""

    @property
    def schema(self) -> Schema:
        """The schema that every client shares."""
        ...

    def __len__(self) -> int:
        """Number of clients."""
        ...

    def name(self, client: int) -> str:
        """Display name of a client (a site's name where the data has one)."""
        ...

    def rows(self, client: int) -> int:
        """Number of rows of a client, without loading them."""
        ...

    def shard(self, client: int) -> Shard:
        """Load the raw rows of a client; `client` is in [0, len(self))."""
        ...


@runtime_checkable
class OwnSplits(Protocol):
    """A population that defines its own splits; otherwise `clients/shard.py` splits the rows."""

    def splits(self, client: int) -> Mapping[Split, NDArray[np.int64]]:
        """Return split → row indices of a client's shard; disjoint, validation and test may be empty."""
        ...
