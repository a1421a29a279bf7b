"""Numbers of 64 bits as several small ones, for sums modulo 2^32.

Sums of moments need more than 32 bits. Each number is written in digits of `_BITS` bits; the digits are added
up apart, and put together again after. Up to 2^18 clients, no sum of digits leaves (-2^31, 2^31).
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
    """Tell whether the numbers that are asked for need more than 32 bits when they are added up."""
    return bool(question[PASS] == "moments")


def spread(vector: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the digits of each number, (DIGITS * size,): the lowest of all first; the highest have signs."""
    digits, rest = [], vector
    for _ in range(DIGITS - 1):
        digits.append(rest & ((1 << _BITS) - 1))
        rest = rest >> _BITS
    return np.concatenate([*digits, rest])


def gathered(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers that digits, or sums of them, stand for."""
    found = np.zeros(digits.size // DIGITS, np.int64)
    for digit in reversed(digits.reshape(DIGITS, -1)):
        found = (found << _BITS) + digit
    return found
