"""The rows of one site of a pilot, read with the schema that all sites agreed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, DataError, UnreadableDataError, unknown_name
from shoal.common.schema import Schema, Shard
from shoal.common.tabular.csv_files import Format, read_csv
from shoal.common.tabular.labels import label_text
from shoal.common.tabular.tables import read_parquet, to_numbers

READABLE: Final = ("numeric", "categorical", "text")
_FORMAT: Final = (
    "delimiter",
    "encoding",
    "missing",
)  # the entries of data.args about the format of CSV files


class SitePopulation:
    """A population of which this process knows only one client: its own."""

    def __init__(self, schema: Schema, shard: Shard, client: int, clients: int) -> None:
        self._schema = schema
        self._shard = shard
        self._client = client
        self._clients = clients

    @property
    def schema(self) -> Schema:
        """The schema that every client shares."""
        return self._schema

    def __len__(self) -> int:
        return self._clients

    def name(self, client: int) -> str:
        """Return a name for messages; the names of other clients are unknown here."""
        return f"client {client}"

    def rows(self, client: int) -> int:
        """Return the number of rows."""
        return self.shard(client).rows

    def shard(self, client: int) -> Shard:
        """Return this site's rows."""
        if client != self._client:
            raise IndexError(f"only the rows of client {self._client} are here, not those of {client}")
        return self._shard


def read_schema(path: Path) -> Schema:
    """Read a schema.json, as written to run folders.

    Raises:
        UnreadableDataError: it names the file.
    """
    try:
        return Schema.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableDataError(
            f"{path} cannot be read as a schema: {type(error).__name__}",
            hint="use the schema.json of a simulated run, or of `shoal split`",
        ) from None


def load_site(path: Path, schema: Schema, scenario: Scenario) -> Shard:
    """Read the rows of a site.

    Args:
        path: a CSV or Parquet file with the schema's columns and its label.
        schema: shared by all sites.
        scenario: for the format of CSV files (data.args), and data.positive.

    Raises:
        UnreadableDataError: the file cannot be read, or contains text in a numeric column.
        ConfigError: columns are missing.
        DataError: labels are missing or unknown; the message never contains a value of a row.
    """
    if any(column.kind not in READABLE for column in schema.columns):
        raise ConfigError(f"a site's file must contain a table or texts, but this schema has {schema.kind}s")
    if not path.is_file():
        raise UnreadableDataError(f"{path} does not exist")
    form = Format.from_args({k: v for k, v in scenario.data.args.items() if k in _FORMAT})
    table = read_parquet(path) if path.suffix == ".parquet" else read_csv(path, form)
    wanted = [*(column.name for column in schema.columns), schema.label]
    missing = [
        f"{path}: {unknown_name('column', n, table.column_names)}"
        for n in wanted
        if n not in table.column_names
    ]
    if missing:
        raise ConfigError(missing)
    if not table.num_rows:
        raise UnreadableDataError(f"{path} contains no rows")
    columns = {c.name: _read(table[c.name], c.kind, c.name, path) for c in schema.columns}
    return Shard(columns, _labels(table[schema.label], schema, scenario, path))


def _read(column: pa.ChunkedArray, kind: str, name: str, path: Path) -> NDArray[Any]:
    if kind == "numeric":
        return np.asarray(to_numbers(column, name, path).to_numpy(), np.float64)
    texts = column.cast(pa.string())
    if kind == "text":
        texts = pc.fill_null(texts, "")
    return np.asarray(texts.to_numpy(zero_copy_only=False), object)


def _labels(column: pa.ChunkedArray, schema: Schema, scenario: Scenario, path: Path) -> NDArray[Any]:
    if column.null_count:
        raise DataError(
            f'{path}: {column.null_count} of {len(column)} rows have no label in "{schema.label}"'
        )
    if schema.task == "regression":
        return np.asarray(to_numbers(column, schema.label, path).to_numpy(), np.float32)
    index = {name: k for k, name in enumerate(schema.classes)}
    rest = 0 if scenario.data.positive is not None and schema.task == "binary" else -1
    codes = np.fromiter((index.get(label_text(v), rest) for v in column.to_pylist()), np.int32, len(column))
    unknown = int((codes < 0).sum())
    if unknown:
        raise DataError(
            f'{path}: {unknown} of {len(column)} rows have a label in "{schema.label}" that is not one of '
            "the "
            f"{len(index)} classes of the schema"
        )
    return codes
