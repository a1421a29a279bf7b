"""The store of a run's client states, as used by the server's checkpoints."""

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
from shoal.common.file_names import file_name


class CheckpointedStates:
    """Records marks of a store in checkpoints; the states themselves are not copied."""

    def __init__(self, store: ClientStateStore) -> None:
        self._store = store

    def mark(self) -> Mapping[str, Any]:
        """Make all states durable, and return the mark for `restore`."""
        return self._store.mark().to_json()

    def restore(self, mark: Mapping[str, Any]) -> None:
        """Return to the states of a mark."""
        self._store.restore(Mark.from_json(mark))

    def release(self, mark: Mapping[str, Any]) -> None:
        """Give up all marks before this one."""
        self._store.release(Mark.from_json(mark))


@dataclass(frozen=True, slots=True)
class ClientStateFolder:
    """Stores of clients that keep their own states: each in a folder below `path`, in memory if `None`.

    Attributes:
        checkpoint_every: rounds between the server's checkpoints.
    """

    path: Path | None
    checkpoint_every: int

    def states(self, name: str) -> SiteStates:
        """Open the states of the client with that name."""
        if self.path is None:
            return SiteStates(MemoryStateStore(), self.checkpoint_every)
        return SiteStates.in_folder(self.path / file_name(name), self.checkpoint_every)


@contextmanager
def state_store(scenario: Scenario, folder: Path | None) -> Iterator[ClientStateStore | None]:
    """Yield a run's store of client states; `None` if clients keep them themselves.

    Args:
        scenario: of the run; folder: for the states, created when needed; `None` keeps them in memory.
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
