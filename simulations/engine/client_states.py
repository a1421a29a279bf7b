"""The store of a run's client states, as the server's checkpoints refer to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.clients.algorithms import keeps_states
from shoal.clients.pilot.states import SiteStates
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


@dataclass(frozen=True, slots=True)
class ClientStateFolder:
    """Where clients keep their own states: each in a folder below `path`, or in memory if it is `None`.

    Attributes:
        checkpoint_every: rounds between the server's checkpoints.
    """

    path: Path | None
    checkpoint_every: int

    def states(self, name: str) -> SiteStates:
        """Open the states of the client of that name."""
        if self.path is None:
            return SiteStates(MemoryStateStore(), self.checkpoint_every)
        return SiteStates.in_folder(self.path / name, self.checkpoint_every)


@contextmanager
def state_store(scenario: Scenario, folder: Path | None) -> Iterator[ClientStateStore | None]:
    """Give a run's store of client states; `None` where clients keep them themselves.

    Args:
        scenario: of the run; folder: for the states, made when it is needed; `None` keeps them in memory.
    """
    if scenario.resources.transport == "grpc":
        yield None
        return
    on_disk = folder is not None and keeps_states(scenario)
    store: ClientStateStore = DiskStateStore(folder) if on_disk and folder is not None else MemoryStateStore()
    try:
        yield store
    finally:
        store.close()
