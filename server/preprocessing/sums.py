"""Sums over clients' vectors of whole numbers: between what is requested and how it is added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.messages.names import CONFIG, SUMMAND
from shoal.common.preprocessing.sums.questions import Values, number_of_pass
from shoal.common.preprocessing.sums.wide import DIGITS, gathered, is_wide
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights
from shoal.server.exchange import ask_enough
from shoal.server.secure.protocol import Task, secure_sum


@dataclass(frozen=True, slots=True)
class SummedVector:
    """A sum over clients.

    Attributes:
        vector: int64; clients: how many are in it.
    """

    vector: NDArray[np.int64]
    clients: int


class SumOver(Protocol):
    """Sends clients one request and returns the sum of their replies."""

    def __call__(self, question: Values, size: int) -> SummedVector:
        """Request vectors of `size` numbers; raises a `ShoalError` if too few clients reply."""
        ...


@dataclass(frozen=True, slots=True)
class ClearSum:
    """Requests each client's vector in the clear, and adds them.

    Attributes:
        grid, sites: reach the clients; clients: their indices.
        scenario: sets how many must reply; say: called with a message on each retry.
    """

    grid: Grid
    sites: Sites
    clients: Sequence[int]
    scenario: Scenario
    say: Callable[[str], None]

    def __call__(self, question: Values, size: int) -> SummedVector:
        """Request and add, as in `SumOver`."""
        content = RecordDict({CONFIG: ConfigRecord(question)})

        def usable(reply: RecordDict) -> None:
            vector_of(reply, size)

        exchange = ask_enough(
            self.grid,
            self.sites,
            [Message(content, node, table.SUMS.name) for node in self.sites.nodes(self.clients)],
            "statistics",
            0,
            self.scenario,
            "preprocessing statistics",
            say=self.say,
            usable=usable,
        )
        vector = np.zeros(size, np.int64)
        for reply in exchange.accepted:
            vector += vector_of(reply.content, size)
        return SummedVector(vector, exchange.answered)


@dataclass(frozen=True, slots=True)
class MaskedSum:
    """Adds clients' vectors under masks, so that the server gets their sum only.

    Attributes:
        grid, sites: reach the clients; clients: their indices.
        scenario: sets how many must reply.
    """

    grid: Grid
    sites: Sites
    clients: Sequence[int]
    scenario: Scenario

    def __call__(self, question: Values, size: int) -> SummedVector:
        """Request and add, as in `SumOver`."""
        wide = is_wide(question)
        task = Task(
            table.SECURE_VECTOR.name,
            RecordDict({CONFIG: ConfigRecord(question)}),
            DIGITS * size if wide else size,
            "statistics",
            "preprocessing statistics, secure aggregation",
        )
        number = number_of_pass(question)
        found = secure_sum(self.grid, self.sites, self.scenario, self.clients, number, task)
        return SummedVector(gathered(found.total) if wide else found.total, len(found.survivors))


def vector_of(reply: RecordDict, size: int) -> NDArray[np.int64]:
    """Return the vector in a client's reply.

    Raises:
        DisclosureError: there is none, or not one of `size` whole numbers.
    """
    record = reply.get(SUMMAND)
    arrays = record_to_weights(record) if isinstance(record, ArrayRecord) else []
    if len(arrays) != 1 or arrays[0].dtype != np.int64 or arrays[0].shape != (size,):
        raise DisclosureError(f"the reply holds no vector of {size} whole numbers")
    return arrays[0]
