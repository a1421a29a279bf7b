"""Encodes real numbers as integers modulo 2^32, which masks hide perfectly and whose sum is exact.

A number x with |x| ≤ range and a weight w ≤ 1 becomes round(S · w · x / range). The levels S are the largest
power of two with which a sum can never leave (-2^31, 2^31):

    n · S  +  10 · S · stddev / range  <  2^31

for n clients and noise of that standard deviation in their sum. The sum of the numbers therefore does not
overflow, and the noise, beyond its ten standard deviations, with a chance of 2 · 10^-23 a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.secure.masks import Ring

_HALF: Final = 2**31
_SIGMAS: Final = 10.0
ROUNDING: Final = 0.5 + 2.0**-20  # in levels: of the rounding itself, and of double precision before it


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """The encoding of one kind of number.

    Attributes:
        range: maximum absolute value; larger numbers are clipped.
        levels: S, the number of levels in `range`, on either side of zero; a power of two.
    """

    range: float
    levels: int

    @classmethod
    def for_sum(cls, clients: int, range: float, stddev: float = 0.0) -> FixedPoint:
        """Return the finest encoding for a sum.

        Args:
            clients: maximum number in the sum; range: maximum absolute value of one client's number.
            stddev: of the noise in the sum, in units of the numbers.

        Raises:
            ValueError: not even one level would fit, because of the noise.
        """
        room = (_HALF - 1) / (clients + _SIGMAS * stddev / range)
        if room < 1:
            raise ValueError(f"a sum of {clients} clients with noise of {stddev / range:g} ranges overflows")
        return cls(range, 1 << math.floor(math.log2(room)))

    @property
    def step(self) -> float:
        """The size of one level."""
        return self.range / self.levels

    @property
    def error(self) -> float:
        """Largest error of one number of one client, after clipping."""
        return ROUNDING * self.step

    def encode(self, values: NDArray[Any], weight: float = 1.0) -> NDArray[np.int64]:
        """Return finite numbers of any shape as integers in [-levels, levels].

        Args:
            values: finite; weight: in [0, 1], by which they are multiplied.
        """
        cut = np.clip(values.astype(np.float64), -self.range, self.range)
        return np.rint(cut * (weight * self.levels / self.range)).astype(np.int64)

    def decode(self, whole: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the numbers that integers, or sums of them, represent."""
        return whole.astype(np.float64) * self.step


def to_ring(whole: NDArray[np.int64]) -> Ring:
    """Return whole numbers modulo 2^32."""
    return whole.astype(np.uint32)


def from_ring(ring: Ring) -> NDArray[np.int64]:
    """Return the integers in [-2^31, 2^31) that numbers modulo 2^32 represent."""
    return ring.view(np.int32).astype(np.int64)
