"""The interface of a store of client states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from shoal.clients.state.batch import StateBatch
from shoal.common.errors import CheckpointError


@dataclass(frozen=True)
class Mark:
    """A point in a store's history that it can return to; checkpoints store it.

    Attributes:
        position: number of entries in the store's history so far; increases from mark to mark.
        checksum: of that history, so that a mark of another store or another history is refused.
    """

    position: int
    checksum: int

    def to_json(self) -> dict[str, int]:
        """Return the mark as strict JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Mark:
        """Return the mark that `to_json` described.

        Raises:
            CheckpointError: the fields are not those of a mark.
        """
        found = [fields.get(name) for name in ("position", "checksum")]
        if len(fields) != 2 or not all(type(number) is int and number >= 0 for number in found):
            raise CheckpointError(f"{dict(fields)} is not a mark in a store of client states")
        return cls(**fields)


START = Mark(0, 0)  # of every store, before the first write


class ClientStateStore(Protocol):
    """Keeps one state per client. All states have the same layout, given or taken from the first write."""

    def read(self, clients: Sequence[int]) -> StateBatch:
        """Return the states of the `clients` that have one, in ascending order.

        The arrays belong to the caller. Before the first write, there are no arrays.

        Raises:
            CheckpointError: a state is damaged.
        """
        ...

    def write(self, batch: StateBatch) -> None:
        """Replace the states of these clients; the arrays are copied.

        Raises:
            ModelError: the batch has another layout; nothing is written.
            StorageError: the disk is full or has failed; all states are unchanged.
        """
        ...

    def mark(self) -> Mark:
        """Make all writes so far durable, and return the mark for `restore`.

        Raises:
            StorageError: the disk is full or has failed; earlier marks can still be restored.
        """
        ...

    def restore(self, mark: Mark) -> None:
        """Discard all writes after `mark`, and all later marks.

        Raises:
            CheckpointError: the store does not hold the states of that mark (any more), or one of them is
                damaged; the store is unchanged.
        """
        ...

    def release(self, oldest: Mark) -> None:
        """Give up all marks before `oldest`; the space of their states is reused.

        Raises:
            CheckpointError: `oldest` is later than the last mark, or unknown.
        """
        ...

    @property
    def bytes_used(self) -> int:
        """Bytes of memory or disk used, including states kept for marks."""
        ...

    def close(self) -> None:
        """Release files and locks; writes after the last mark may be lost."""
        ...
