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
from shoal.common.schema import Column, ColumnKind, Schema, Shard
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.values import is_text as holds_text
from shoal.common.tabular.values import plain, refuse_infinite, to_numbers, to_texts
from shoal.simulations.datasets.inference import Inferred, infer, padded
from shoal.simulations.datasets.labels import encode_labels
from shoal.simulations.datasets.leaks import leaking
from shoal.simulations.datasets.raw import Raw
from shoal.simulations.datasets.stored import Coded, PlainColumn, Stored, Texts

NO_SITE: Final = "(none)"  # the client of rows without a site


@dataclass(frozen=True, slots=True)
class StoredTable:
    """All rows of a data set, encoded only so far that no client learns anything about another's rows.

    Attributes:
        schema: names, kinds, classes; columns: by name; labels: as in `Shard`.
        sites: the site of each row, never missing; `None` if the data have no sites.
        notes: what a user should know about how columns were read, one line each.
    """

    schema: Schema
    columns: Mapping[str, Stored]
    labels: NDArray[Any]
    sites: Coded | None
    notes: tuple[str, ...] = ()

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

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how columns were read, one line each."""
        return self._table.notes

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


def build_table(raw: Raw, config: DataConfig, min_count: int = 1) -> StoredTable:
    """Infer the schema of a data set and store its columns.

    Args:
        raw: the rows; config: names inputs and label.
        min_count: rows that a category needs to be reported by a site; with 1, none is refused as too rare.

    Raises:
        ConfigError: a column in the configuration does not exist, or columns need a decision of the user.
        DataError: there are no inputs, or the labels are unusable.
    """
    labels, task, classes = encode_labels(raw, config)
    stored: dict[str, Stored] = {}
    columns: list[Column] = []
    notes, problems = [*raw.notes, *padded(raw.table[raw.label], raw.label, raw.format)], list[str]()
    for name, tensor in raw.tensors.items():
        _refuse_non_finite(name, tensor)
        columns.append(Column(name, "sequence" if tensor.ndim == 3 else "image", tensor.shape[1:]))
        stored[name] = PlainColumn(tensor)
    for name in [] if raw.tensors else _inputs(raw, config):
        found = _typed(raw, name, min_count)
        notes += found.notes
        problems += found.problems
        if not found.problems:
            columns.append(Column(name, _kind(found.values, is_text=name == raw.text)))
            stored[name] = _store(name, found.values, columns[-1].kind)
    if problems:
        raise ConfigError([f"the column {problem}" for problem in problems])
    if not columns:
        raise DataError("no input columns are left", hint="check data.include and data.exclude")
    notes += leaking(columns, stored, labels, task)
    sites = None if raw.site is None else _sites(raw.table[raw.site], raw.format)
    return StoredTable(Schema(tuple(columns), task, classes, raw.label), stored, labels, sites, tuple(notes))


def _typed(raw: Raw, name: str, min_count: int) -> Inferred:
    """Return a column as numbers or text, as the user decided or as its values say."""
    column = plain(raw.table[name])
    if name == raw.text:
        return Inferred(to_texts(column, raw.format, trim=False))
    kind = raw.kinds.get(name)
    if kind == "categorical":
        return Inferred(to_texts(column, raw.format))
    if kind == "numeric":
        return Inferred(to_numbers(column, name, raw.where, raw.format))
    return infer(column, name, raw.format, typed=raw.typed, min_count=min_count)


def _refuse_non_finite(name: str, tensor: NDArray[Any]) -> None:
    if tensor.dtype.kind == "f":
        rows = int((~np.isfinite(tensor)).any(axis=tuple(range(1, tensor.ndim))).sum())
        if rows:
            raise DataError(
                f'{rows} of {len(tensor)} rows of "{name}" contain missing or infinite values',
                hint="fill in these values, or remove the rows",
            )


def _sites(column: pa.ChunkedArray, form: FileFormat) -> Coded:
    return _coded(pc.fill_null(to_texts(column, form), NO_SITE))


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


def _kind(values: pa.ChunkedArray, *, is_text: bool) -> ColumnKind:
    if is_text:
        return "text"
    textual = holds_text(values.type) or pa.types.is_boolean(values.type)
    return "categorical" if textual else "numeric"


def _store(name: str, values: pa.ChunkedArray, kind: ColumnKind) -> Stored:
    if kind == "text":
        return Texts(values.cast(pa.large_string()).combine_chunks())
    return _numbers(name, values) if kind == "numeric" else _coded(values.cast(pa.string()))


def _numbers(name: str, array: pa.ChunkedArray) -> PlainColumn:
    values = np.array(array.cast(pa.float64()).to_numpy())
    refuse_infinite(values, name)
    return PlainColumn(values)


def _coded(texts: pa.ChunkedArray) -> Coded:
    coded = texts.combine_chunks().dictionary_encode()
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, np.asarray(coded.dictionary.to_pylist(), object))
