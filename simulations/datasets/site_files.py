"""Writes the simulated clients' rows to files, to rehearse a pilot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from shoal.clients.pilot.site_data import READABLE
from shoal.common.errors import ConfigError
from shoal.common.schema import Population


def write_sites(population: Population, folder: Path) -> list[Path]:
    """Write schema.json and one CSV file per client.

    Raises:
        ConfigError: the data are neither a table nor texts.
    """
    schema = population.schema
    if any(column.kind not in READABLE for column in schema.columns):
        raise ConfigError(f"only tables and texts can be written to files, but these are {schema.kind}s")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.json").write_text(schema.to_json(), encoding="utf-8")
    written = []
    for client in range(len(population)):
        shard = population.shard(client)
        columns: Mapping[str, NDArray[Any]] = shard.columns
        classes = np.asarray(schema.classes, object)
        labels = classes[shard.labels] if schema.classes else shard.labels
        # pandas writes NaN, a missing number, as an empty field.
        table = pa.table(
            {n: pa.array(v, from_pandas=True) for n, v in columns.items()} | {schema.label: labels}
        )
        written.append(folder / f"{population.name(client)}.csv")
        csv.write_csv(table, written[-1])
    return written
