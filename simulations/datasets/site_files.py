"""Writes the simulated clients' rows to files, to rehearse a pilot."""

from __future__ import annotations

import codecs
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from shoal.clients.pilot.site_data import READABLE
from shoal.common.errors import ConfigError, DataError
from shoal.common.file_names import file_name
from shoal.common.schema import Population, Schema, Shard
from shoal.common.tabular.file_format import FileFormat


def write_sites(population: Population, folder: Path, form: FileFormat) -> list[Path]:
    """Write schema.json and one file per client, which `load_site` reads back bit by bit.

    Args:
        population: a table or texts; folder: made if need be.
        form: of the scenario's files. The sites' files are CSV written in it, or Parquet where it has no
            plain header.

    Raises:
        ConfigError: the data are neither a table nor texts. DataError: names of clients do not make files.
    """
    schema = population.schema
    if any(column.kind not in READABLE for column in schema.columns):
        raise ConfigError(f"only tables and texts can be written to files, but these are {schema.kind}s")
    as_csv = form.header in (None, 1) and _is_writable(form.encoding)
    written = [folder / f"{name}.{'csv' if as_csv else 'parquet'}" for name in _file_names(population)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.json").write_text(schema.to_json(), encoding="utf-8")
    for client, path in enumerate(written):
        table = _table(population.shard(client), schema)
        if as_csv:
            _write_csv(table, path, form)
        else:
            parquet.write_table(table, path)
    return written


def _file_names(population: Population) -> list[str]:
    """Return a file name for each client.

    Raises:
        DataError: two are the same where capitals do not count, as on many laptops, or one is too long.
    """
    names = [file_name(population.name(client)) for client in range(len(population))]
    folded = Counter(name.casefold() for name in names)
    alike = sum(count for count in folded.values() if count > 1)
    if alike:
        raise DataError(
            f"the names of {alike} clients differ in capital letters only: their files would overwrite "
            "each other on some file systems",
            hint="rename them in the column or folder that names the clients",
        )
    return names


def _table(shard: Shard, schema: Schema) -> pa.Table:
    classes = np.asarray(schema.classes, object)
    labels = classes[shard.labels] if schema.classes else shard.labels
    # from_pandas: NaN, a missing number, becomes a null, and so an empty field.
    columns = {name: pa.array(values, from_pandas=True) for name, values in shard.columns.items()}
    return pa.table(columns | {schema.label: labels})


def _write_csv(table: pa.Table, path: Path, form: FileFormat) -> None:
    for index, column in enumerate(table.columns):
        if form.decimal == "," and pa.types.is_floating(column.type):
            texts = pc.replace_substring(column.cast(pa.string()), ".", ",")
            table = table.set_column(index, table.column_names[index], texts)
    csv.write_csv(table, path, csv.WriteOptions(delimiter=form.delimiter_of(path)))


def _is_writable(encoding: str | None) -> bool:
    """Whether a file in UTF-8, which Arrow writes, would be read as such."""
    return encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
