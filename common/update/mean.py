"""The weighted mean of updates, as a running sum: the memory of one model for any number of clients.

Groups make the result independent of where it is summed. The clients of a round, by ascending index, are
divided into groups whose size follows from their number and the execution mode alone (`group_size`). A worker
may send the mean of a group, or each client its own update: the server sums within groups and then over
groups, with the same code in the same order. So serial, Ray and gRPC runs are bitwise equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]

_GROUPS: Final = 32  # enough for idle workers to even out unequal clients
_FEW_GROUPS: Final = 8  # used where the setup of a group costs more than uneven workers
_STACK: Final = 50  # a smaller stack costs about as much as one of this size


def group_size(clients: int, *, stacked: bool = False, short: bool = False) -> int:
    """Return how many clients of a phase are processed and summed together.

    Args:
        clients: in the phase, at least 1.
        stacked: whether they train in stacks; short: whether their work is one pass over few rows.
    """
    if stacked:
        return -(-clients // min(_FEW_GROUPS, max(1, round(clients / _STACK))))
    return -(-clients // (_FEW_GROUPS if short else _GROUPS))


class UpdateMean:
    """A running weighted mean in float64, so that rounding does not add to one client's influence.

    The mean of a single update equals that update bit by bit.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.count = 0
        self._first: list[NDArray[Any]] = []
        self._first_weight = 0.0
        self._sums: list[NDArray[np.float64]] = []
        self._scratch: list[NDArray[np.float64]] = []

    def add(self, update: Arrays, weight: float) -> None:
        """Add an update, which must not be modified afterwards."""
        if self.count == 0:
            self._first, self._first_weight = list(update), weight
        else:
            if self.count == 1:
                self._start()
            for total, scratch, u in zip(self._sums, self._scratch, update, strict=True):
                # Without dtype, numpy multiplies in the update's own type and widens the rounded product.
                np.multiply(u, weight, out=scratch, dtype=np.float64)
                np.add(total, scratch, out=total)
        self.count += 1
        self.weight += weight

    def mean(self) -> list[NDArray[Any]]:
        """Return the mean in the updates' own types.

        Raises:
            ValueError: nothing was added, or the weights sum to zero.
        """
        if self.count == 1:
            return self._first
        if self.weight <= 0:
            raise ValueError("the weights sum to zero")
        return [
            np.asarray(total / self.weight, u.dtype) for total, u in zip(self._sums, self._first, strict=True)
        ]

    def sum(self) -> list[NDArray[np.float64]]:
        """Return the sum of weight times update."""
        if self.count == 1:
            self._start()
        return self._sums

    def _start(self) -> None:
        # np.asarray: the product of a zero-dimensional array is a scalar, which cannot be added to in place.
        self._sums = [np.asarray(u.astype(np.float64) * self._first_weight) for u in self._first]
        self._scratch = [np.empty_like(total) for total in self._sums]
