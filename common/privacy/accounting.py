"""Privacy accounting with Google's dp-accounting; the only module that uses it.

Everything here is a Gaussian mechanism that is used many times, possibly on a random sample of clients or
rows:

- `everyone`: all members take part each time. Two data sets are neighbours if one has one more member.
- `poisson`: each member takes part independently with a known probability. Neighbours as before (Mironov,
  Talwar, Zhang: Rényi Differential Privacy of the Sampled Gaussian Mechanism, 2019).
- `fixed`: a fixed number of a known population, without replacement. Neighbours differ in the data of one
  member, so a sum of clipped parts changes by up to twice the clipping norm (Wang, Balle, Kasiviswanathan:
  Subsampled Rényi Differential Privacy and Analytical Moments Accountant, AISTATS 2019, theorem 27).

A member is what the guarantee protects: a client with all its rows, or one row. The accountants are Rényi
divergences (Mironov, CSF 2017) and privacy loss distributions (Koskela, Jälkö, Honkela, AISTATS 2020;
Meiser, Mohammadi, CCS 2018); the latter have no bound for `fixed`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shoal.common.errors import BudgetError

if TYPE_CHECKING:
    from dp_accounting import DpEvent, NeighboringRelation

Accountant = Literal["rdp", "pld"]
Sampling = Literal["everyone", "poisson", "fixed"]

_FINEST: Final = 1e-4  # relative precision of calculated noise multipliers
_MOST_NOISE: Final = math.log(1e6)
_ENDLESS: Final = 1e3  # stands for the logarithm of an infinite epsilon
_ROUNDING: Final = 1e-6  # tolerance, because sums may differ by an ulp between machines


@dataclass(frozen=True, slots=True)
class Charge:
    """A Gaussian mechanism that is used several times.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm of one member's part.
        count: number of uses, at least 0.
        sampling: who takes part.
        share: probability of taking part: sample size / population for "fixed".
        population: number of members that a "fixed" sample is drawn from; 0 otherwise.
    """

    noise_multiplier: float
    count: int
    sampling: Sampling = "everyone"
    share: float = 1.0
    population: int = 0


@lru_cache(maxsize=65_536)
def epsilon(charges: tuple[Charge, ...], delta: float, accountant: Accountant) -> float:
    """Return the epsilon that all charges together have spent at `delta`; 0 for none.

    Args:
        charges: if one of them is "fixed", neighbours differ in the data of one member for all of them.
        delta: in (0, 1).
        accountant: "rdp" or "pld".
    """
    charges = tuple(charge for charge in charges if charge.count)
    if not charges:
        return 0.0
    replaced = any(charge.sampling == "fixed" for charge in charges)
    with _quiet():
        if accountant == "pld":
            return _by_losses(charges, delta, replaced)
        return _by_divergences(charges, delta, replaced)


def over(spent: float, budget: float) -> bool:
    """Whether an epsilon exceeds a budget for which noise was calculated, beyond rounding."""
    return spent > budget * (1 + _ROUNDING)


def _by_divergences(charges: Sequence[Charge], delta: float, replaced: bool) -> float:
    """Add up Rényi divergences: those of k uses are k times those of one."""
    from dp_accounting.rdp import compute_epsilon  # takes a second to import

    found = [(charge.count, *_divergences(replace(charge, count=1), replaced)) for charge in charges]
    total = np.sum([count * once for count, _, once in found], axis=0)
    return float(compute_epsilon(found[0][1], total, delta)[0])


@lru_cache(maxsize=65_536)
def _divergences(charge: Charge, replaced: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the orders, and the Rényi divergence of one use at each; cached, as it takes 10 ms."""
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=_relation(replaced))
    accountant.compose(_event(charge, replaced))
    # dp-accounting (0.6) has no public access to them, and recomputes them for every sum.
    return np.asarray(accountant._orders), np.asarray(accountant._rdp)


def _by_losses(charges: Sequence[Charge], delta: float, replaced: bool) -> float:
    """Compose privacy loss distributions."""
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(_relation(replaced))
    for charge in charges:
        accountant.compose(_event(charge, replaced), charge.count)
    return float(accountant.get_epsilon(delta))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress dp-accounting's warnings about orders that it skips: this can only increase epsilon."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def solve_noise(
    charges: Callable[[float], Sequence[Charge]], budget: float, delta: float, accountant: Accountant
) -> float:
    """Return the smallest noise multiplier with which charges stay within a budget, to one part in 10^4.

    Args:
        charges: returns the charges for a noise multiplier; more noise must not cost more.
        budget: epsilon, above 0; delta, accountant: as for `epsilon`.

    Raises:
        BudgetError: no noise is enough, because a part that does not depend on it spends the budget.
    """
    from scipy.optimize import brentq

    def excess(log_noise: float) -> float:
        cost = epsilon(tuple(charges(math.exp(log_noise))), delta, accountant)
        return math.log(max(cost, 1e-9) / budget) if math.isfinite(cost) else _ENDLESS

    high = 0.0
    while excess(high) > 0:
        high += math.log(2)
        if high > _MOST_NOISE:
            raise BudgetError(
                f"no amount of noise keeps epsilon = {budget:g} at delta = {delta:g}",
                hint="raise privacy.epsilon, or lower privacy.statistics_epsilon",
            )
    low = high - math.log(2)
    while excess(low) <= 0:
        low -= math.log(2)
    found = float(brentq(excess, low, high, xtol=_FINEST / 2)) + _FINEST / 2
    while excess(found) > 0:  # the solver may stop on either side of the root
        found += _FINEST / 2
    return math.exp(found)


def neighbours(charges: Sequence[Charge], member: str) -> str:
    """Describe the neighbouring data sets of a guarantee; `member`: "client" or "training row"."""
    if any(charge.sampling == "fixed" for charge in charges):
        return f"differ in all data of one {member}"
    return f"differ by the presence of one {member}"


def _relation(replaced: bool) -> NeighboringRelation:
    from dp_accounting import NeighboringRelation

    return NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.ADD_OR_REMOVE_ONE


def _event(charge: Charge, replaced: bool) -> DpEvent:
    """Return one use of a charge; `replaced`: neighbours differ in one member's data, not its presence."""
    import dp_accounting

    # One part is removed from the sum and another one is added.
    gaussian = dp_accounting.GaussianDpEvent(charge.noise_multiplier / (2 if replaced else 1))
    if charge.sampling == "poisson" and charge.share < 1:
        return dp_accounting.PoissonSampledDpEvent(charge.share, gaussian)
    if charge.sampling == "fixed" and charge.share < 1:
        size = round(charge.share * charge.population)
        return dp_accounting.SampledWithoutReplacementDpEvent(charge.population, size, gaussian)
    return gaussian
