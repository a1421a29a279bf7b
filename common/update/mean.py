"""The weighted mean of updates, as a running sum: the memory of one model for any number of clients.

Groups make the result independent of where it is summed. The clients of a round, by ascending index, are
divided into groups whose size follows from their number and the execution mode alone (`group_size`). A worker
may send the mean of a group, or each client its own update: the server sums within groups and then over
groups, with the same code in the same order. So serial, Ray and gRPC runs are bitwise equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]

_GROUPS: Final = 32  # enough for idle workers to even out unequal clients
_FEW_GROUPS: Final = 8  # used where the setup of a group costs more than uneven workers
_BLOCK: Final = 1 << 14  # numbers added at a time: 128 KiB of products
_HELD: Final = 2  # updates that a mean holds before it adds them up
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

    The mean of a single update equals that update bit by bit. The first two updates are held as they are,
    which takes no more memory than their sum: a mean of two, as workers often compute, needs no sum.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.count = 0
        self._held: list[tuple[list[NDArray[Any]], float]] = []
        self._sums: list[NDArray[np.float64]] = []
        self._scratch = np.empty(_BLOCK)

    def add(self, update: Arrays, weight: float) -> None:
        """Add an update, which must not be modified afterwards."""
        if self.count < _HELD:
            self._held.append((list(update), weight))
        else:
            if self.count == _HELD:
                self._sums = self._held_sums()
            for total, u in zip(self._sums, update, strict=True):
                self._add_scaled(total.reshape(-1), u.reshape(-1), weight)
        self.count += 1
        self.weight += weight

    def mean(self) -> list[NDArray[Any]]:
        """Return the mean in the updates' own types.

        Raises:
            ValueError: nothing was added, or the weights sum to zero.
        """
        if self.count == 1:
            return self._held[0][0]
        if self.weight <= 0:
            raise ValueError("the weights sum to zero")
        likes = self._held[0][0]
        if self.count > _HELD:
            return [np.asarray(t / self.weight, u.dtype) for t, u in zip(self._sums, likes, strict=True)]
        found = [np.empty(u.shape, u.dtype) for u in likes]
        for k, mean in enumerate(found):
            flat = mean.reshape(-1)
            for start, total in self._held_blocks(k):
                total /= self.weight
                flat[start : start + _BLOCK] = total
        return found

    def sum(self) -> list[NDArray[np.float64]]:
        """Return the sum of weight times update."""
        return self._sums if self.count > _HELD else self._held_sums()

    def _held_sums(self) -> list[NDArray[np.float64]]:
        sums = [np.empty(u.shape) for u in self._held[0][0]]
        for k, total in enumerate(sums):
            flat = total.reshape(-1)
            for start, part in self._held_blocks(k):
                flat[start : start + _BLOCK] = part
        return sums

    def _held_blocks(self, k: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Return the sum of array k of the held updates, a block at a time, with the block's start."""
        (first, weight), *others = [(update[k].reshape(-1), weight) for update, weight in self._held]
        for start in range(0, first.size, _BLOCK):
            total = first[start : start + _BLOCK].astype(np.float64)
            total *= weight
            for other, other_weight in others:
                self._add_scaled(total, other[start : start + _BLOCK], other_weight)
            yield start, total

    def _add_scaled(self, total: NDArray[np.float64], update: NDArray[Any], weight: float) -> None:
        """Add weight · update to a sum, both flat, a block at a time: the products stay in the cache."""
        for start in range(0, update.size, _BLOCK):
            part = update[start : start + _BLOCK]
            product = self._scratch[: part.size]
            product[...] = part  # widened before it is multiplied: otherwise the rounded product would be
            product *= weight
            total[start : start + _BLOCK] += product
