"""Rows stored in columns that workers share: converts a `Raw` data set to a `Population`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shoal.common import errors
from shoal.common.config import DataConfig
from shoal.common.errors import ConfigError, DataError
from shoal.common.schema import Column, Schema, Shard
from shoal.simulations.datasets.labels import encode_labels
from shoal.simulations.datasets.raw import Raw


@dataclass(frozen=True, slots=True)
class Coded:
    """A categorical column: `codes` (rows,) int32 into `values` (object, of `str`); -1 where missing."""

    codes: NDArray[np.int32]
    values: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the texts of rows, `None` where missing."""
        codes = self.codes[rows]
        known = np.empty(len(self.values) + 1, object)  # the last entry, for code -1, stays None
        known[:-1] = self.values
        return np.asarray(known[codes])


@dataclass(frozen=True, slots=True)
class Texts:
    """A text column in Arrow: Python strings are made only for the requested rows."""

    array: pa.LargeStringArray

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the texts of rows, "" where missing."""
        taken = pc.fill_null(self.array.take(pa.array(rows)), "")
        return np.asarray(taken.to_numpy(zero_copy_only=False), object)


@dataclass(frozen=True, slots=True)
class PlainColumn:
    """A numeric, image or sequence column."""

    values: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of rows."""
        return self.values[rows]


Stored = Coded | Texts | PlainColumn
NO_SITE: Final = "(none)"  # the client of rows without a site


@dataclass(frozen=True, slots=True)
class StoredTable:
    """All rows of a data set, encoded only so far that no client learns anything about another's rows.

    Attributes:
        schema: names, kinds, classes; columns: by name; labels: as in `Shard`.
        sites: the site of each row, never missing; `None` if the data have no sites.
    """

    schema: Schema
    columns: Mapping[str, Stored]
    labels: NDArray[Any]
    sites: Coded | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)


class TablePopulation:
    """Clients that hold rows of one table in memory.

    The table is sent to workers as a few large buffers, which Ray shares between the workers of a machine;
    only the rows of a requested client are copied.
    """

    def __init__(
        self,
        table: StoredTable,
        parts: Sequence[NDArray[np.int64]],
        names: Sequence[str],
        left_out: Mapping[str, int],
    ) -> None:
        """Create the clients of a table.

        Args:
            table: all rows.
            parts: row indices of each client; names: one per client.
            left_out: name → rows of clients that were too small.
        """
        self._table = replace(table, sites=None)  # `parts` replaces them
        self._order = np.concatenate(parts) if parts else np.empty(0, np.int64)
        self._offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
        self._names = tuple(names)
        self.left_out = dict(left_out)

    @property
    def schema(self) -> Schema:
        """The schema that every client shares."""
        return self._table.schema

    def __len__(self) -> int:
        return len(self._names)

    def name(self, client: int) -> str:
        """Return the display name of a client."""
        return self._names[client]

    def rows(self, client: int) -> int:
        """Return the number of rows of a client."""
        return int(self._offsets[client + 1] - self._offsets[client])

    def shard(self, client: int) -> Shard:
        """Return a client's raw rows."""
        if not 0 <= client < len(self):
            raise IndexError(f"client {client} of {len(self)}")
        rows = self._order[self._offsets[client] : self._offsets[client + 1]]
        columns = {name: column.take(rows) for name, column in self._table.columns.items()}
        return Shard(columns, self._table.labels[rows])


def build_table(raw: Raw, config: DataConfig) -> StoredTable:
    """Infer the schema of a data set and store its columns.

    Raises:
        ConfigError: a column in the configuration does not exist.
        DataError: there are no inputs, or the labels are unusable.
    """
    labels, task, classes = encode_labels(raw, config)
    stored: dict[str, Stored] = {}
    columns: list[Column] = []
    for name, tensor in raw.tensors.items():
        _refuse_non_finite(name, tensor)
        columns.append(Column(name, "sequence" if tensor.ndim == 3 else "image", tensor.shape[1:]))
        stored[name] = PlainColumn(tensor)
    if not raw.tensors:
        for name in _inputs(raw, config):
            column, kept = _store(name, raw.table[name], is_text=name == raw.text)
            columns.append(column)
            stored[name] = kept
    if not columns:
        raise DataError("no input columns are left", hint="check data.include and data.exclude")
    sites = None if raw.site is None else _sites(raw.table[raw.site])
    return StoredTable(Schema(tuple(columns), task, classes, raw.label), stored, labels, sites)


def _refuse_non_finite(name: str, tensor: NDArray[Any]) -> None:
    if tensor.dtype.kind == "f":
        rows = int((~np.isfinite(tensor)).any(axis=tuple(range(1, tensor.ndim))).sum())
        if rows:
            raise DataError(
                f'{rows} of {len(tensor)} rows of "{name}" contain missing or infinite values',
                hint="fill in these values, or remove the rows",
            )


def _sites(column: pa.ChunkedArray) -> Coded:
    names = column.cast(pa.string())
    return _coded(pc.fill_null(pc.if_else(pc.equal(names, ""), None, names), NO_SITE))


def _inputs(raw: Raw, config: DataConfig) -> list[str]:
    names = raw.table.column_names
    problems = [
        f"data.{key}: {errors.unknown_name('column', name, names)}"
        for key, given in (("include", config.include), ("exclude", config.exclude))
        for name in given
        if name not in names
    ]
    if problems:
        raise ConfigError(problems)
    if raw.text is not None:
        return [raw.text]
    never = {raw.label, raw.site, *raw.exclude, *config.exclude}
    wanted = config.include or names
    return [name for name in names if name in wanted and name not in never]


def _store(name: str, array: pa.ChunkedArray, *, is_text: bool) -> tuple[Column, Stored]:
    """Infer the kind of a column from its type: numbers are numeric, text and true/false categorical."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _store(name, array.cast(kind.value_type), is_text=is_text)
    if is_text:
        return Column(name, "text"), Texts(array.cast(pa.large_string()).combine_chunks())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Column(name, "numeric"), _numbers(name, array)
    if pa.types.is_null(kind):
        return Column(name, "numeric"), PlainColumn(np.full(len(array), np.nan))
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = array.cast(pa.string())
        return Column(name, "categorical"), _coded(pc.if_else(pc.equal(texts, ""), None, texts))
    raise DataError(
        f'column "{name}" has values of type {kind}; expected numbers, text or true/false',
        hint=f'convert it to numbers, or exclude it: data.exclude = ["{name}"]',
    )


def _numbers(name: str, array: pa.ChunkedArray) -> PlainColumn:
    values = np.array(array.cast(pa.float64()).to_numpy())
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(
            f'{infinite} of {len(values)} rows have an infinite number in column "{name}"',
            hint="replace it with a finite number, or leave the field empty (missing)",
        )
    return PlainColumn(values)


def _coded(texts: pa.ChunkedArray) -> Coded:
    coded = texts.combine_chunks().dictionary_encode()
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, np.asarray(coded.dictionary.to_pylist(), object))
