"""The contract between the round loop and whoever decides when clients work.

A result depends only on the weights that a client starts from, the client, and the number of the dispatch,
which keys every draw made for it. So replies may come in any order, and late: a scheduler says which of those
that are there are aggregated next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import ArrayRecord

from shoal.server.clock import Clock
from shoal.server.exchange import Exchange
from shoal.server.update_sum import UpdateSum


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Work that is sent to clients at once.

    Attributes:
        number: from 1, each used once; seeds are keyed by it. A synchronous round's number is its round.
        clients: indices, ascending; perhaps none, where each is drawn by itself.
        base_version: of the model that they start from: how many aggregations it has seen.
    """

    number: int
    clients: Sequence[int]
    base_version: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """Replies to a dispatch that have come back.

    Attributes:
        dispatch: what they answer; start: the weights that these clients started from.
        exchange: the replies, and a row for each client that was asked.
        time: on the scheduler's clock.
        total: what they add up to, where only a secure sum came back.
    """

    dispatch: Dispatch
    start: ArrayRecord
    exchange: Exchange
    time: float
    total: UpdateSum | None = None


class Scheduler(Protocol):
    """Decides what is sent when, and what is aggregated when."""

    def next(self, clock: Clock, version: int, in_flight: int) -> Dispatch | None:
        """Return what to send now; `None` to wait for replies first.

        Args:
            clock: tells the time; version: aggregations done so far.
            in_flight: dispatches whose replies have not been aggregated yet.
        """
        ...

    def ready(self, buffer: Sequence[Arrival]) -> Sequence[Arrival]:
        """Return which of the replies that are there are aggregated now; none to wait for more."""
        ...
