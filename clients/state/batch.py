"""The states of several clients, stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LARGEST_CLIENT: Final = 2**27 - 1  # indexes are dense arrays over clients; this one would take 2.7 GB


@dataclass(frozen=True, eq=False)
class StateBatch:
    """The states of several clients, stacked.

    Attributes:
        clients: indices of the clients from 0, (k,), strictly ascending.
        arrays: by name, the arrays of all states, (k, ...), in the order of `clients`.

    Raises:
        ValueError: `clients` is not as described, or an array does not have one row for each of them.
    """

    clients: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        check_clients(self.clients)
        if (self.clients[1:] <= self.clients[:-1]).any():
            raise ValueError("the clients of a batch of states must be strictly ascending")
        for name, array in self.arrays.items():
            if array.shape[:1] != self.clients.shape:
                raise ValueError(
                    f'the states "{name}" have shape {array.shape}; expected {len(self.clients)} rows'
                )

    def __len__(self) -> int:
        return len(self.clients)


def joined(batches: Sequence[StateBatch]) -> StateBatch:
    """Return batches of different clients as one batch, in ascending order.

    Raises:
        ValueError: a client is in more than one batch.
    """
    clients = np.concatenate([batch.clients for batch in batches])
    order = np.argsort(clients, kind="stable")
    arrays = {
        name: np.concatenate([batch.arrays[name] for batch in batches])[order] for name in batches[0].arrays
    }
    return StateBatch(clients[order], arrays)


def ascending(clients: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of clients in ascending order, each once.

    Raises:
        ValueError: one is negative, or beyond `LARGEST_CLIENT`.
    """
    found = np.unique(np.asarray(clients, dtype=np.int64))
    check_clients(found)
    return found


def check_clients(clients: NDArray[np.int64]) -> None:
    """Raise `ValueError` unless these are client indices in one dimension."""
    if clients.ndim != 1 or clients.dtype != np.int64:
        raise ValueError(
            f"clients must be int64 in one dimension, not {clients.dtype} of shape {clients.shape}"
        )
    if len(clients) and not 0 <= clients.min() <= clients.max() <= LARGEST_CLIENT:
        raise ValueError(
            f"clients must be from 0 to {LARGEST_CLIENT:,}, not {clients.min()} to {clients.max()}"
        )
