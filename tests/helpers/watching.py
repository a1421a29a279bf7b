"""A Grid that passes everything on and keeps every message."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.server.app import Hooks, Outcome
from shoal.server.cohort_grid import CohortGrid
from shoal.simulations import datasets
from shoal.simulations.run import coordinate

Seen = list[tuple[Message, Message]]


class WatchingGrid(CohortGrid):
    """Passes everything on, and keeps each request with its reply."""

    seen: Seen

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        replies = list(super().send_and_receive(asked, timeout=timeout))
        by_node = {m.metadata.dst_node_id: m for m in asked}
        # copies of the containers: a strategy may take a reply apart
        self.seen += [(by_node[r.metadata.src_node_id], Message(r.content, reply_to=r)) for r in replies]
        return replies


def watching(seen: Seen) -> Callable[[Grid], Grid]:
    """Return what wraps a Grid so that messages are added to `seen`; for `simulations.run.coordinate`."""

    def wrap(grid: Grid) -> Grid:
        found = WatchingGrid(grid, grid.get_node_ids())  # type: ignore[arg-type]
        found.seen = seen
        return found

    return wrap


def run_watched(config: Scenario) -> tuple[Outcome, Seen]:
    """Run a scenario; return its outcome, and each request with its reply."""
    seen: Seen = []
    found: list[Outcome] = []
    hooks = Hooks([], lambda fitted: None)
    coordinate(config, datasets.load_population(config), hooks, found.append, watching(seen))
    return found[0], seen
