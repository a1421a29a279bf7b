"""Spreads the rows of a table over clients, with the partitioners of flwr-datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from common.config import PartitionConfig
from common.errors import ConfigError, EmptyClientError
from common.seeds import generator, integer_seed
from simulations.datasets.table import Table, TablePopulation

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

Indices = NDArray[np.int64]
Parts = Mapping[str, Indices]  # client name → row indices


def partition(table: Table, config: PartitionConfig, seed: int) -> TablePopulation:
    """Spread a table over clients.

    Every row goes to exactly one client; clients with fewer than `config.min_rows` rows are then left
    out, and named in `TablePopulation.left_out`.

    Raises:
        ConfigError: the scheme does not fit the data.
        EmptyClientError: no client is left.
    """
    parts = _SCHEMES[config.scheme](table, config, seed)
    kept = {name: np.sort(rows) for name, rows in parts.items() if len(rows) >= config.min_rows}
    left_out = {name: len(rows) for name, rows in parts.items() if name not in kept}
    if not kept:
        largest = max(map(len, parts.values()), default=0)
        raise EmptyClientError(
            f"all {len(parts)} clients have fewer than partition.min_rows = {config.min_rows} rows; "
            f"the largest has {largest}",
            hint="use fewer clients, or lower partition.min_rows",
        )
    return TablePopulation(table, list(kept.values()), list(kept), left_out)


def _natural(table: Table, config: PartitionConfig, seed: int) -> Parts:
    """One client a site, by size; with more clients than sites, sites are split in proportion."""
    sites = _sites(table)
    if config.clients is None or config.clients <= len(sites):
        return sites
    rng = generator(seed, "partition")
    pieces = _apportion([len(rows) for rows in sites.values()], config.clients)
    parts: dict[str, Indices] = {}
    for (name, rows), count in zip(sites.items(), pieces, strict=True):
        parts |= _pieces(name, rng.permutation(rows), count)
    return parts


def _size(table: Table, config: PartitionConfig, seed: int) -> Parts:
    """Sites (or all rows) cut into equal pieces of at most `max_rows` rows."""
    sites = _sites(table) if table.sites is not None else {"client": np.arange(table.rows)}
    rng = generator(seed, "partition")
    most = config.max_rows or table.rows
    parts: dict[str, Indices] = {}
    for name, rows in sites.items():
        parts |= _pieces(name, rng.permutation(rows), -(-len(rows) // most))
    return parts


def _sites(table: Table) -> dict[str, Indices]:
    if table.sites is None:
        raise ConfigError(
            'partition.scheme: "natural" needs sites, and this data has none: set data.client_column, '
            "or use another scheme"
        )
    names, site, counts = np.unique(table.sites.astype(str), return_inverse=True, return_counts=True)
    order = np.lexsort((names, -counts))
    return {str(names[i]): np.flatnonzero(site == i) for i in order}


def _apportion(sizes: list[int], clients: int) -> list[int]:
    """Give each site at least one client, and each further one to the site with the largest pieces."""
    pieces = [1] * len(sizes)
    for _ in range(clients - len(sizes)):
        largest = max(range(len(sizes)), key=lambda i: (sizes[i] / pieces[i], -i))
        pieces[largest] += 1
    return pieces


def _pieces(name: str, rows: Indices, count: int) -> dict[str, Indices]:
    if count == 1:
        return {name: rows}
    width = len(str(count))
    return {f"{name}-{i + 1:0{width}}": part for i, part in enumerate(np.array_split(rows, count))}


def _by_flower(make: Callable[[PartitionConfig, int], Partitioner], *, by_label: bool) -> Callable[..., Parts]:
    """Return a scheme that a partitioner of flwr-datasets does."""

    def scheme(table: Table, config: PartitionConfig, seed: int) -> Parts:
        if by_label and not table.schema.classes:
            raise ConfigError(
                f'partition.scheme: "{config.scheme}" spreads rows by class, and this task is a regression'
            )
        clients = config.clients or 1
        if clients > table.rows:
            raise ConfigError(f"partition.clients: {clients} clients for {table.rows} rows")
        order = generator(seed, "partition").permutation(table.rows)
        return _run(make(config, integer_seed(seed, "partition")), table.labels[order], order, clients)

    return scheme


def _run(partitioner: Partitioner, labels: NDArray[Any], order: Indices, clients: int) -> Parts:
    import datasets

    quiet = datasets.utils.logging
    datasets.disable_progress_bars()
    quiet.set_verbosity_error()
    try:
        partitioner.dataset = datasets.Dataset.from_dict({"row": order, "label": labels})
        found = [np.asarray(partitioner.load_partition(i)["row"], np.int64) for i in range(clients)]
    except ValueError as error:
        raise ConfigError(f"partition: flwr-datasets refuses these numbers: {error}") from error
    width = len(str(clients - 1))
    return {f"client-{i:0{width}}": rows for i, rows in enumerate(found)}


def _partitioners() -> Any:
    # The package looks for a hub and reports to it unless it is told not to.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    from flwr_datasets import partitioner

    return partitioner


_SCHEMES: Final[dict[str, Callable[[Table, PartitionConfig, int], Parts]]] = {
    "natural": _natural,
    "size": _size,
    "iid": _by_flower(lambda c, seed: _partitioners().IidPartitioner(c.clients), by_label=False),
    "dirichlet": _by_flower(
        lambda c, seed: _partitioners().DirichletPartitioner(
            c.clients, partition_by="label", alpha=c.alpha, min_partition_size=0, seed=seed
        ),
        by_label=True,
    ),
    "shards": _by_flower(
        lambda c, seed: _partitioners().ShardPartitioner(
            c.clients, partition_by="label", num_shards_per_partition=c.shards_per_client, seed=seed
        ),
        by_label=True,
    ),
    "quantity": _by_flower(
        lambda c, seed: getattr(_partitioners(), f"{c.skew.capitalize()}Partitioner")(c.clients),
        by_label=False,
    ),
}
