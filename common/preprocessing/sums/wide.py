"""Splits 64-bit numbers into several small ones, for sums modulo 2^32.

Sums of moments need more than 32 bits. Each number is split into digits of `_BITS` bits; the digits are
summed separately and combined afterwards. With up to 2^18 clients, sums of digits stay within (-2^31, 2^31).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.preprocessing.sums.questions import PASS

DIGITS: Final = 5
_BITS: Final = 13


def is_wide(question: Mapping[str, Any]) -> bool:
    """Whether the requested numbers need more than 32 bits when they are summed."""
    return bool(question[PASS] == "moments")


def spread(vector: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the digits of all numbers, (DIGITS * size,): lowest digits first; the highest are signed."""
    digits, rest = [], vector
    for _ in range(DIGITS - 1):
        digits.append(rest & ((1 << _BITS) - 1))
        rest = rest >> _BITS
    return np.concatenate([*digits, rest])


def gathered(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers that digits, or sums of them, represent."""
    found = np.zeros(digits.size // DIGITS, np.int64)
    for digit in reversed(digits.reshape(DIGITS, -1)):
        found = (found << _BITS) + digit
    return found
