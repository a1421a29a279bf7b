"""The rows of one site of a pilot, read with the schema that all sites agreed on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow.compute as pc

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, UnreadableDataError
from shoal.common.printable import problems_of_names
from shoal.common.schema import Schema, Shard
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import lacking_columns, read_columns, read_labels, read_table
from shoal.common.tabular.values import to_texts

READABLE: Final = ("numeric", "categorical", "text")


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
        schema = Schema.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableDataError(
            f"{path} cannot be read as a schema: {type(error).__name__}",
            hint="use the schema.json of a simulated run, or of `shoal split`",
        ) from None
    names = [*(column.name for column in schema.columns), schema.label, *schema.classes]
    if problems := problems_of_names("name", names):
        raise UnreadableDataError(f"{path}: {'; '.join(problems)}")
    return schema


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
    form = FileFormat.from_args(scenario.data.args)
    found = read_table(path, form)
    table = found.table
    wanted = [*(column.name for column in schema.columns), schema.label]
    if problems := lacking_columns(found, wanted, form, path):
        raise ConfigError(problems, source=str(path))
    if scenario.data.args.get("drop_missing_labels", False):
        table = table.filter(pc.is_valid(to_texts(table[schema.label], form)))
    if not table.num_rows:
        raise UnreadableDataError(f"{path} contains no rows")
    rest = scenario.data.positive is not None and schema.task == "binary"
    labels = read_labels(table[schema.label], schema, form, path, rest=rest)
    return Shard(read_columns(table, schema, form, path), labels)
