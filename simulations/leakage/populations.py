"""Populations for retraining: with canaries added, or with single batches as clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shoal.clients.shard import split_indices
from shoal.common.config import DataConfig
from shoal.common.errors import EmptyClientError
from shoal.common.schema import Population, Schema, Shard, Split


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A population with canaries: additional training rows of some clients, or additional clients.

    All other rows are split as in the run, so two such populations differ only in their canaries.

    Attributes:
        base: the run's own population; data, seed: how it was split.
        added: client index → its canaries.
        clients: additional clients, which only train; `None` for one that is counted but never replies.
    """

    base: Population
    data: DataConfig
    seed: int
    added: Mapping[int, Shard] = field(default_factory=dict)
    clients: Sequence[Shard | None] = ()

    @property
    def schema(self) -> Schema:
        """The schema that every client shares."""
        return self.base.schema

    def __len__(self) -> int:
        return len(self.base) + len(self.clients)

    def name(self, client: int) -> str:
        """Return the display name of a client."""
        more = client - len(self.base)
        return f"canary-{more}" if more >= 0 else self.base.name(client)

    def rows(self, client: int) -> int:
        """Return the number of rows of a client, canaries included."""
        if client >= len(self.base):
            more = self.clients[client - len(self.base)]
            return 0 if more is None else more.rows
        return self.base.rows(client) + (self.added[client].rows if client in self.added else 0)

    def shard(self, client: int) -> Shard:
        """Return the rows of a client, canaries last.

        Raises:
            EmptyClientError: the client never replies.
        """
        if client >= len(self.base):
            more = self.clients[client - len(self.base)]
            if more is None:
                raise EmptyClientError(f"{self.name(client)} is left out by its coin")
            return more
        own = self.base.shard(client)
        return join([own, self.added[client]]) if client in self.added else own

    def splits(self, client: int) -> Mapping[Split, NDArray[np.int64]]:
        """Return which rows train: the canaries, and the training rows of the run."""
        if client >= len(self.base):
            return _all_train(self.rows(client))
        own = self.base.shard(client)
        found = split_indices(own.labels, self.data, self.seed, client)
        more = np.arange(own.rows, self.rows(client))
        return {**found, "train": np.concatenate([found["train"], more])}


@dataclass(frozen=True, slots=True)
class TargetBatches:
    """Small batches of rows, each a client whose only rows these are."""

    schema: Schema
    batches: Sequence[Shard]

    def __len__(self) -> int:
        return len(self.batches)

    def name(self, client: int) -> str:
        """Return a name for messages."""
        return f"batch-{client}"

    def rows(self, client: int) -> int:
        """Return the number of rows of a batch."""
        return self.batches[client].rows

    def shard(self, client: int) -> Shard:
        """Return a batch."""
        return self.batches[client]

    def splits(self, client: int) -> Mapping[Split, NDArray[np.int64]]:
        """Return that all rows train."""
        return _all_train(self.rows(client))


def join(shards: Sequence[Shard]) -> Shard:
    """Return the rows of several shards of one schema, one after another."""
    columns = {name: np.concatenate([s.columns[name] for s in shards]) for name in shards[0].columns}
    return Shard(columns, np.concatenate([s.labels for s in shards]))


def _all_train(rows: int) -> Mapping[Split, NDArray[np.int64]]:
    nothing = np.empty(0, np.int64)
    return {"train": np.arange(rows), "validation": nothing, "test": nothing}
