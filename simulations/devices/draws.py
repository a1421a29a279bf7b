"""Random numbers that are a pure function of a seed and keys, such as a device and the number of its job.

A generator with a state would tie a device's luck to the order in which others are simulated. Here each
number is a hash: the same on any number of workers, and without a loop over devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, purpose: str, *keys: ArrayLike) -> Floats:
    """Return uniform numbers in (0, 1), one for each combination of broadcast keys.

    SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), applied once
    for each key; 53 bits.

    Args:
        seed: of the run; purpose: separates streams; keys: non-negative integers, broadcast together.
    """
    with np.errstate(over="ignore"):  # modulo 2^64 is what is wanted
        state = _mixed(np.asarray(np.uint64(seed) + np.uint64(crc32(purpose.encode())) * _GOLDEN))
        for key in keys:
            state = _mixed(state + (np.asarray(key, np.uint64) + np.uint64(1)) * _GOLDEN)
    return np.asarray(((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def normal(seed: int, purpose: str, *keys: ArrayLike) -> Floats:
    """Return standard normal numbers; arguments as for `uniform`."""
    return np.asarray(ndtri(uniform(seed, purpose, *keys)))


def choice(seed: int, purpose: str, weights: Sequence[float], *keys: ArrayLike) -> NDArray[np.int64]:
    """Return indices with probabilities in proportion to weights; other arguments as for `uniform`."""
    edges = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))[:-1]
    return np.searchsorted(edges, uniform(seed, purpose, *keys), side="right")


def indices(seed: int, purpose: str, size: int, *keys: ArrayLike) -> NDArray[np.int64]:
    """Return indices below `size`, each as likely; other arguments as for `uniform`."""
    return np.floor(uniform(seed, purpose, *keys) * size).astype(np.int64)


def from_quantiles(u: Floats, at: Sequence[float], values: Sequence[float]) -> Floats:
    """Return values of a distribution known by its quantiles, linear in their logarithm between them.

    Args:
        u: uniform numbers; at: probabilities, ascending; values: the quantiles there, above 0. Beyond the
            outer ones the line goes on to the next probability of 0 or 1 no further than one more step.
    """
    p = np.array([max(0.0, 2 * at[0] - at[1]), *at, min(1.0, 2 * at[-1] - at[-2])])
    logs = np.log(np.asarray(values, np.float64))
    ends = 2 * logs[0] - logs[1], 2 * logs[-1] - logs[-2]
    return np.asarray(np.exp(np.interp(u, p, np.array([ends[0], *logs, ends[1]]))))


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
