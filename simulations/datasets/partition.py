"""Divides the rows of a table among clients, with the partitioners of flwr-datasets where possible.

Natural sites are divided here: the partitioner of flwr-datasets for them copies every client's rows, and
importing it takes seconds, which the default scenario does not need.
"""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import PartitionConfig
from shoal.common.errors import ConfigError, EmptyClientError
from shoal.common.seeds import generator, integer_seed
from shoal.simulations.datasets.table import StoredTable, TablePopulation

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

Indices = NDArray[np.int64]
Parts = list[tuple[str, Indices]]  # name and row indices of each client
Scheme = Callable[[StoredTable, PartitionConfig, int], Parts]


def partition(table: StoredTable, config: PartitionConfig, seed: int) -> TablePopulation:
    """Divide a table among clients.

    Every row goes to exactly one client; clients with fewer than `config.min_rows` rows are then left out,
    and listed in `TablePopulation.left_out`.

    Raises:
        ConfigError: the scheme does not fit the data.
        EmptyClientError: no client is left.
    """
    parts = _with_unique_names(_SCHEMES[config.scheme](table, config, seed))
    kept = [(name, np.sort(rows)) for name, rows in parts if len(rows) >= config.min_rows]
    left_out = {name: len(rows) for name, rows in parts if len(rows) < config.min_rows}
    if not kept:
        largest = max((len(rows) for _, rows in parts), default=0)
        raise EmptyClientError(
            f"all {len(parts)} clients have fewer than partition.min_rows = {config.min_rows} rows; "
            f"the largest has {largest}",
            hint="use fewer clients, or lower partition.min_rows",
        )
    return TablePopulation(table, [rows for _, rows in kept], [name for name, _ in kept], left_out)


def _with_unique_names(parts: Parts) -> Parts:
    """Distinguish a site "a-1" from the first piece of a site "a"."""
    taken: set[str] = set()
    unique: Parts = []
    for name, rows in parts:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        taken.add(free)
        unique.append((free, rows))
    return unique


def _natural(table: StoredTable, config: PartitionConfig, seed: int) -> Parts:
    """One client per site, largest first; with more clients than sites, sites are split in proportion."""
    sites = _sites(table)
    if config.clients is None or config.clients == len(sites):
        return sites
    if config.clients < len(sites):
        raise ConfigError(
            f"partition.clients = {config.clients} is less than the {len(sites)} sites in the data, and the "
            'scheme "natural" never merges sites: remove the key, or use another scheme'
        )
    _check_clients(config.clients, table.rows)
    rng = generator(seed, "partition")
    counts = _apportion([len(rows) for _, rows in sites], config.clients)
    parts: Parts = []
    for (name, rows), count in zip(sites, counts, strict=True):
        parts += _pieces(name, rng.permutation(rows), count)
    return parts


def _size(table: StoredTable, config: PartitionConfig, seed: int) -> Parts:
    """Sites (or all rows) cut into equal pieces of at most `max_rows` rows."""
    sites = _sites(table) if table.sites is not None else [("client", np.arange(table.rows))]
    rng = generator(seed, "partition")
    most = config.max_rows or table.rows
    parts: Parts = []
    for name, rows in sites:
        parts += _pieces(name, rng.permutation(rows), -(-len(rows) // most))
    return parts


def _sites(table: StoredTable) -> Parts:
    if table.sites is None:
        raise ConfigError(
            'partition.scheme: "natural" needs sites, but these data have none: set data.client_column, '
            "or use another scheme"
        )
    names, codes = table.sites.values, table.sites.codes
    counts = np.bincount(codes, minlength=len(names))
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    order = sorted(range(len(names)), key=lambda i: (-counts[i], str(names[i])))
    return [(str(names[i]), rows[i].astype(np.int64)) for i in order if counts[i]]


def _apportion(sizes: Sequence[int], clients: int) -> list[int]:
    """Give each site one client, and each additional client to the site with the largest pieces."""
    pieces = [1] * len(sizes)
    heap = [(-float(size), i) for i, size in enumerate(sizes)]
    heapq.heapify(heap)
    for _ in range(clients - len(sizes)):
        _, i = heap[0]
        pieces[i] += 1
        heapq.heapreplace(heap, (-sizes[i] / pieces[i], i))
    return pieces


def _pieces(name: str, rows: Indices, count: int) -> Parts:
    if count == 1:
        return [(name, rows)]
    width = max(2, len(str(count)))
    return [(f"{name}-{i + 1:0{width}}", part) for i, part in enumerate(np.array_split(rows, count))]


def _check_clients(clients: int, rows: int) -> None:
    if clients > rows:
        raise ConfigError(
            f"partition.clients: {clients} clients need at least {clients} rows, but there are {rows}"
        )


def _by_flower(make: Callable[[PartitionConfig, int], Partitioner], *, by_label: bool) -> Scheme:
    """Return a scheme that uses a partitioner of flwr-datasets."""

    def scheme(table: StoredTable, config: PartitionConfig, seed: int) -> Parts:
        if by_label and not table.schema.classes:
            raise ConfigError(
                f'partition.scheme: "{config.scheme}" divides rows by class, but the task is regression'
            )
        clients = config.clients or 1
        _check_clients(clients, table.rows)
        order = generator(seed, "partition").permutation(table.rows)
        found = _run(make(config, integer_seed(seed, "partition")), table.labels[order], order, clients)
        width = len(str(clients - 1))
        return [(f"client-{i:0{width}}", rows) for i, rows in enumerate(found)]

    return scheme


def _shards(table: StoredTable, config: PartitionConfig, seed: int) -> Parts:
    """Label-sorted shards, a few per client, as in McMahan et al. (AISTATS 2017).

    The partitioner drops the remainder rows that do not fill one more row in every shard; here each of them
    goes to a client that already has its class.
    """
    shards = (config.clients or 1) * config.shards_per_client
    if shards > table.rows:
        raise ConfigError(
            f"partition: {config.clients} clients with {config.shards_per_client} shards each need at least "
            f"{shards} rows, but there are {table.rows}"
        )
    parts = _shards_by_flower(table, config, seed)
    dropped = np.setdiff1d(np.arange(table.rows), np.concatenate([rows for _, rows in parts]))
    extra: list[list[int]] = [[] for _ in parts]
    for label in np.unique(table.labels[dropped]):
        holders = [i for i, (_, rows) in enumerate(parts) if np.any(table.labels[rows] == label)]
        holders = holders or list(range(len(parts)))
        for turn, row in enumerate(dropped[table.labels[dropped] == label]):
            extra[holders[turn % len(holders)]].append(int(row))
    return [
        (name, np.concatenate([rows, np.asarray(more, np.int64)]))
        for (name, rows), more in zip(parts, extra, strict=True)
    ]


def _run(partitioner: Partitioner, labels: NDArray[Any], order: Indices, clients: int) -> list[Indices]:
    """Return the rows of each client, given rows in the order `order` with their `labels`."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    try:
        partitioner.dataset = datasets.Dataset.from_dict({"row": order, "label": labels})
        # exp of many clients overflows to infinity, which is refused below.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # `datasets` 4.8 sorts with an option that pyarrow 25 expects elsewhere.
            warnings.filterwarnings("ignore", "Specifying null_placement", FutureWarning)
            return [np.asarray(partitioner.load_partition(i)["row"], np.int64) for i in range(clients)]
    except ValueError as error:
        raise ConfigError(
            f"partition: {len(order)} rows cannot be divided among {clients} clients this way: {error}",
            hint="use fewer clients, or less skew",
        ) from error


def _partitioners() -> Any:
    # The package contacts a hub and reports to it unless this is switched off.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    from flwr_datasets import partitioner

    return partitioner


_shards_by_flower = _by_flower(
    lambda c, seed: _partitioners().ShardPartitioner(
        c.clients, partition_by="label", num_shards_per_partition=c.shards_per_client, seed=seed
    ),
    by_label=True,
)
_SCHEMES: Final[dict[str, Scheme]] = {
    "natural": _natural,
    "size": _size,
    "iid": _by_flower(lambda c, seed: _partitioners().IidPartitioner(c.clients), by_label=False),
    "dirichlet": _by_flower(
        lambda c, seed: _partitioners().DirichletPartitioner(
            c.clients, partition_by="label", alpha=c.alpha, min_partition_size=0, seed=seed
        ),
        by_label=True,
    ),
    "shards": _shards,
    "quantity": _by_flower(
        lambda c, seed: getattr(_partitioners(), f"{c.skew.capitalize()}Partitioner")(c.clients),
        by_label=False,
    ),
}
