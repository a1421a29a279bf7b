"""Synchronous rounds: each cohort is sampled, trains and is aggregated before the next one is sampled."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.common.config import Scenario
from shoal.common.privacy.noise import Source
from shoal.server.clock import Clock
from shoal.server.sampling import train_cohort
from shoal.server.schedulers.scheduler import Arrival, Dispatch


class SyncScheduler:
    """One dispatch for each round, numbered like the round.

    Args:
        scenario: gives the sampling of cohorts; clients: in the federation; source: of the random draws.
        skipped: dispatches before a resumed run that were begun, never completed, and must not be repeated.
    """

    def __init__(self, scenario: Scenario, clients: int, source: Source, skipped: int = 0) -> None:
        self._scenario = scenario
        self._clients = clients
        self._source = source
        self._skipped = skipped

    def next(self, clock: Clock, version: int, in_flight: int) -> Dispatch | None:
        """Return the next round's cohort, once the previous round is aggregated."""
        if in_flight:
            return None
        number, scenario = version + 1 + self._skipped, self._scenario
        cohort = train_cohort(scenario.strategy, scenario.seed, number, self._clients, self._source)
        return Dispatch(number, cohort, version)

    def ready(self, buffer: Sequence[Arrival]) -> Sequence[Arrival]:
        """Return the whole buffer: the replies of the round."""
        return buffer
