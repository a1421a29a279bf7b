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

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.privacy.noise import Randomness

LEAST_STDDEV: Final = 4.0  # levels


def noise_share(draws: Randomness, stddev: float, size: int) -> NDArray[np.int64]:
    """Return one client's share of noise, (size,).

    Args:
        draws: of the numbers; stddev: of the share, in levels; size: how many.

    Raises:
        ValueError: `stddev` is so small that the sum of shares would not be close to a Gaussian.
    """
    if stddev < LEAST_STDDEV:
        raise ValueError(
            f"noise of {stddev:.3g} levels is too small; a share needs at least {LEAST_STDDEV:g}"
        )
    return np.rint(stddev * draws.normal(size)).astype(np.int64)
