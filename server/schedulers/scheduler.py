"""The interface between the round loop and the policy that decides when clients work.

A result depends only on the start weights, the client, and the dispatch number, which keys every random
draw made for it. So replies may arrive late and in any order: the scheduler decides which of the replies
received so far are aggregated next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import ArrayRecord

from shoal.server.clock import Clock
from shoal.server.exchange import Exchange
from shoal.server.update_sum import UpdateSum


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Work sent to a set of clients at the same time.

    Attributes:
        number: from 1, each used once; keys the seeds. In synchronous training it equals the round.
        clients: indices, ascending; may be empty under Poisson sampling.
        base_version: version of the model that they start from: the number of aggregations done before it.
    """

    number: int
    clients: Sequence[int]
    base_version: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """The replies to one dispatch.

    Attributes:
        dispatch: the work that was sent.
        start: the weights that its clients started from.
        exchange: the replies, and a row for each client of the dispatch.
        time: when they arrived, on the scheduler's clock.
        learning_rate: that the requests gave; NaN if there were none.
        total: their sum, where secure aggregation yields nothing else.
    """

    dispatch: Dispatch
    start: ArrayRecord
    exchange: Exchange
    time: float
    learning_rate: float = math.nan
    total: UpdateSum | None = None


class Scheduler(Protocol):
    """Decides what is dispatched and what is aggregated, and when."""

    def next(self, clock: Clock, version: int, in_flight: int) -> Dispatch | None:
        """Return what to dispatch now; `None` to wait for replies first.

        Args:
            clock: gives the time; version: aggregations done so far.
            in_flight: dispatches whose replies have not been aggregated yet.
        """
        ...

    def ready(self, buffer: Sequence[Arrival]) -> Sequence[Arrival]:
        """Return which of the buffered replies to aggregate now; empty to wait for more."""
        ...
