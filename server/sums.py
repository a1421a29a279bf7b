"""Sums over clients' vectors of whole numbers: the seam between what is asked and how it is added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from common import records
from common.config import Scenario
from common.errors import DisclosureError
from common.preprocessing.sums.questions import Values
from common.records import CONFIG
from server.exchange import ask_enough
from server.sites import Sites


@dataclass(frozen=True, slots=True)
class Summed:
    """A sum over clients.

    Attributes:
        vector: int64; clients: how many are in it.
    """

    vector: NDArray[np.int64]
    clients: int


class SumOver(Protocol):
    """Asks clients one question and returns the sum of their answers."""

    def __call__(self, question: Values, size: int) -> Summed:
        """Ask for vectors of `size` numbers; raises a `ShoalError` where too few clients answer."""
        ...


@dataclass(frozen=True, slots=True)
class ClearSum:
    """Asks each client for its vector in the clear, and adds.

    Attributes:
        grid, sites: reach the clients; clients: indices of those asked.
        scenario: says how many must answer; say: is told of new tries.
    """

    grid: Grid
    sites: Sites
    clients: Sequence[int]
    scenario: Scenario
    say: Callable[[str], None]

    def __call__(self, question: Values, size: int) -> Summed:
        """Ask and add, as `SumOver` says."""
        content = RecordDict({CONFIG: ConfigRecord(question)})

        def usable(reply: RecordDict) -> None:
            vector_of(reply, size)

        exchange = ask_enough(
            self.grid,
            self.sites,
            [Message(content, node, records.SUMS) for node in self.sites.nodes(self.clients)],
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
        return Summed(vector, exchange.answered)


def vector_of(reply: RecordDict, size: int) -> NDArray[np.int64]:
    """Return the vector in a client's reply.

    Raises:
        DisclosureError: there is none, or not one of `size` whole numbers.
    """
    record = reply.get(records.SUMMAND)
    arrays = records.record_to_weights(record) if isinstance(record, ArrayRecord) else []
    if len(arrays) != 1 or arrays[0].dtype != np.int64 or arrays[0].shape != (size,):
        raise DisclosureError(f"the reply holds no vector of {size} whole numbers")
    return arrays[0]
