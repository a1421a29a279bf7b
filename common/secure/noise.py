"""Gaussian noise on whole numbers, in shares: each client adds its own before its mask.

A share is round(N(0, s²)) on numbers that are whole already. Rounding commutes with whole shifts, so this is
the same as rounding the noisy number. For s of at least four levels, the sum of n shares is as good as a
Gaussian of variance n · s² to which n uniform numbers in (-½, ½) are added, which is post-processing of the
Gaussian mechanism: the weights of the two on whole numbers differ by a factor of 1 ± 2 · exp(-π² s²), by
Poisson's summation formula, and exp(-π² · 16) is below 10^-68. docs/secure-aggregation.md derives it; for
sums of discrete Gaussians, Kairouz, Liu, Steinke: The Distributed Discrete Gaussian Mechanism, ICML 2021,
show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

LEAST_STDDEV: Final = 4.0  # levels


class NormalSource(Protocol):
    """Where standard normal numbers come from."""

    def normal(self, size: int) -> NDArray[np.float64]:
        """Return independent numbers of mean 0 and variance 1, (size,)."""
        ...


@dataclass(frozen=True, slots=True)
class SeededSource:
    """Numbers of a seeded generator, for simulations: who knows the seed can take the noise away."""

    rng: np.random.Generator

    def normal(self, size: int) -> NDArray[np.float64]:
        """Draw them."""
        return self.rng.standard_normal(size)


def noise_share(source: NormalSource, stddev: float, size: int) -> NDArray[np.int64]:
    """Return one client's share of noise, (size,).

    Args:
        source: of the numbers; stddev: of the share, in levels; size: how many.

    Raises:
        ValueError: it is so small that the sum of shares would not be as good as a Gaussian.
    """
    if stddev < LEAST_STDDEV:
        raise ValueError(f"noise of {stddev:.3g} levels; a share needs {LEAST_STDDEV:g}")
    return np.rint(stddev * source.normal(size)).astype(np.int64)
