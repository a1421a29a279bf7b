"""The store of a run's client states, as the server's checkpoints refer to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoal.clients.algorithms import keeps_states
from shoal.clients.state import ClientStateStore, DiskStateStore, Mark, MemoryStateStore
from shoal.common.config import Scenario


class CheckpointedStates:
    """Notes moments of a store in checkpoints; the states themselves stay where they are."""

    def __init__(self, store: ClientStateStore) -> None:
        self._store = store

    def mark(self) -> Mapping[str, Any]:
        """Make all states durable, and return what `restore` takes to come back to them."""
        return self._store.mark().to_json()

    def restore(self, mark: Mapping[str, Any]) -> None:
        """Go back to the states of a mark."""
        self._store.restore(Mark.from_json(mark))

    def release(self, mark: Mapping[str, Any]) -> None:
        """Say that marks before this one will not be restored."""
        self._store.release(Mark.from_json(mark))


@contextmanager
def state_store(scenario: Scenario, folder: Path | None) -> Iterator[ClientStateStore]:
    """Give a run's store of client states: on disk, if there is a folder and clients remember anything.

    Args:
        scenario: of the run; folder: for the states, made when it is needed; `None` keeps them in memory.
    """
    on_disk = folder is not None and keeps_states(scenario)
    store: ClientStateStore = DiskStateStore(folder) if on_disk and folder is not None else MemoryStateStore()
    try:
        yield store
    finally:
        store.close()
