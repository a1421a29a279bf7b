"""The contract of a store of client states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from shoal.clients.state.batch import StateBatch
from shoal.common.errors import CheckpointError


@dataclass(frozen=True)
class Mark:
    """A moment in the life of a store, to which it can go back: what a checkpoint notes of the states.

    Attributes:
        position: entries in the store's history up to here, from 0; it grows from mark to mark.
        checksum: of that history, so that a mark of another store or another past is refused.
    """

    position: int
    checksum: int

    def to_json(self) -> dict[str, int]:
        """Return the mark as strict JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Mark:
        """Return the mark that `to_json` wrote.

        Raises:
            CheckpointError: these are not the fields of a mark.
        """
        found = [fields.get(name) for name in ("position", "checksum")]
        if len(fields) != 2 or not all(type(number) is int and number >= 0 for number in found):
            raise CheckpointError(f"{dict(fields)} is not a mark in a store of client states")
        return cls(**fields)


START = Mark(0, 0)  # of every store: before anything was written


class ClientStateStore(Protocol):
    """Keeps one state a client. All states have one layout, which is given or that of the first write."""

    def read(self, clients: Sequence[int]) -> StateBatch:
        """Return the states of those of `clients` that have one, in ascending order.

        The arrays are the caller's own. Without any state ever written, there are no arrays.

        Raises:
            CheckpointError: a state is not as it was written.
        """
        ...

    def write(self, batch: StateBatch) -> None:
        """Replace the states of these clients; none is kept by reference.

        Raises:
            ModelError: the batch has another layout; nothing is written.
            StorageError: the disk is full or has failed; all states are as before.
        """
        ...

    def mark(self) -> Mark:
        """Make everything written so far durable, and return what `restore` takes to come back to it.

        Raises:
            StorageError: the disk is full or has failed; earlier marks can still be restored.
        """
        ...

    def restore(self, mark: Mark) -> None:
        """Forget all that was written after `mark`, and every later mark.

        Raises:
            CheckpointError: the store does not hold the states of that moment (any more), or one of them is
                damaged; the store is as before.
        """
        ...

    def release(self, oldest: Mark) -> None:
        """Say that marks before `oldest` will not be restored; the space of their states is used again.

        Raises:
            CheckpointError: `oldest` is later than the last mark, or unknown.
        """
        ...

    @property
    def bytes_used(self) -> int:
        """Bytes of memory or of disk that the store takes, states that marks need included."""
        ...

    def close(self) -> None:
        """Let go of files and locks; what was not marked may be lost."""
        ...
