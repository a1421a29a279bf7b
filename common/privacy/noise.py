"""Sources of noise: the run's seed in a simulation, the operating system in a pilot.

Predictable noise protects nothing. A simulation uses the seeded generators of `common/seeds.py`, so that its
results are reproducible; a pilot uses a ChaCha20 key stream (RFC 8439) with a fresh key from the operating
system, which nobody can predict from its output.

Floating-point noise has gaps that can reveal the value it was added to (Mironov: On Significance of the Least
Significant Bits For Differential Privacy, CCS 2012). So sums are rounded to a grid, and the noise is a whole
number of grid steps: integers have no gaps.
"""

from __future__ import annotations

import math
import os
from typing import Any, Final, Literal, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from shoal.common.seeds import Purpose, generator

Source = Literal["seeded", "system"]
# Description of each source in results, reports and privacy statements.
SOURCES: Final[dict[Source, str]] = {
    "seeded": "seeded generator (PCG64): reproducible, so no protection against anyone who knows the seed",
    "system": "operating system's generator (ChaCha20 key stream)",
}

_GRID_BITS: Final = 30  # grid steps in a standard deviation, as a power of two
# Rounding to float32 and to the grid can move a sum beyond the clipping norm, by less than this.
SLACK: Final = 1 + 2.0**-10


class Randomness(Protocol):
    """Independent draws; each call continues the stream."""

    def normal(self, size: int) -> NDArray[np.float64]:
        """Return standard normal numbers, (size,)."""
        ...

    def random(self, size: int) -> NDArray[np.float64]:
        """Return numbers uniform in [0, 1), (size,)."""
        ...


class SeededRandomness:
    """Draws of a generator of `common/seeds.py`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def normal(self, size: int) -> NDArray[np.float64]:
        """Return standard normal numbers, (size,)."""
        return self._rng.standard_normal(size)

    def random(self, size: int) -> NDArray[np.float64]:
        """Return numbers uniform in [0, 1), (size,)."""
        return self._rng.random(size)


class SystemRandomness:
    """Draws of a ChaCha20 key stream whose key and nonce come from the operating system."""

    def __init__(self) -> None:
        # The block counter wraps after 256 GB of key stream, more than any run draws.
        nonce = bytes(4) + os.urandom(12)
        self._stream = Cipher(ChaCha20(os.urandom(32), nonce), mode=None).encryptor()

    def random(self, size: int) -> NDArray[np.float64]:
        """Return numbers uniform in [0, 1), multiples of 2^-53, (size,)."""
        words = np.frombuffer(self._stream.update(bytes(8 * size)), np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, size: int) -> NDArray[np.float64]:
        """Return standard normal numbers, (size,).

        Box, Muller: A Note on the Generation of Random Normal Deviates, Annals of Mathematical
        Statistics 29(2), 1958. With 53 bits a number is at most 8.6 in size; a normal one is larger with a
        probability of 1e-17.
        """
        half = -(-size // 2)
        radius = np.sqrt(-2 * np.log1p(-self.random(half)))  # of 1 - u in (0, 1], so never the logarithm of 0
        angle = 2 * np.pi * self.random(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


def randomness(
    source: Source, seed: int, purpose: Purpose, *, dispatch: int = 0, client: int = 0
) -> SeededRandomness | SystemRandomness:
    """Return the draws of one purpose, dispatch and client.

    Args:
        source: "seeded" returns the same draws for the same other arguments; "system" never does,
            and ignores them.
        seed, purpose, dispatch, client: as for `common.seeds.generator`.
    """
    if source == "system":
        return SystemRandomness()
    return SeededRandomness(generator(seed, purpose, dispatch=dispatch, client=client))


def with_noise(values: NDArray[Any], stddev: float, draws: Randomness) -> NDArray[np.float64]:
    """Return values plus Gaussian noise, both as whole multiples of one grid step.

    The step is a power of two of about 2^-30 standard deviations, so every result is exact in float64 as
    long as values stay below 2^22 standard deviations, and has no gaps that would tell of the values.

    Args:
        values: finite, (numbers,).
        stddev: standard deviation, above 0. Rounding adds half a step to each number: that is covered
            where `stddev` holds `SLACK`.
        draws: source of the noise.
    """
    step = 2.0 ** (math.floor(math.log2(stddev)) - _GRID_BITS)
    noise = np.rint(draws.normal(values.size) * (stddev / step))
    return np.asarray((np.rint(values.astype(np.float64) / step) + noise) * step)
