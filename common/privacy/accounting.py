"""What privacy costs, added up by Google's dp-accounting; the only place that knows it.

Everything here is a Gaussian mechanism used many times, perhaps on a random part of the clients or rows:

- `everyone`: all take part each time. Two data sets are neighbours if one has one member more.
- `poisson`: each takes part by itself with a known probability. Neighbours as before (Mironov, Talwar,
  Zhang: Rényi Differential Privacy of the Sampled Gaussian Mechanism, 2019).
- `fixed`: so many of a known number, without replacement. Neighbours differ in what one member holds, so a
  sum of clipped parts changes by up to twice the clipping norm (Wang, Balle, Kasiviswanathan: Subsampled
  Rényi Differential Privacy and Analytical Moments Accountant, AISTATS 2019, theorem 27).

A member is what the promise protects: a client with all its rows, or one row. The accountants are Rényi
divergences (Mironov, CSF 2017) and privacy loss distributions (Koskela, Jälkö, Honkela, AISTATS 2020;
Meiser, Mohammadi, CCS 2018), the latter of which has no bound for `fixed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from common.errors import BudgetError

if TYPE_CHECKING:
    from dp_accounting import DpEvent, NeighboringRelation

Accountant = Literal["rdp", "pld"]
Sampling = Literal["everyone", "poisson", "fixed"]

_FINEST: Final = 1e-4  # to which noise multipliers are solved, relative to the result
_MOST_NOISE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Charge:
    """A Gaussian mechanism that is used several times.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm of one member's part.
        count: how often, at least 0.
        sampling: who takes part.
        share: probability of taking part: sample size / population for "fixed".
        population: number of members that a "fixed" sample is drawn from; 0 otherwise.
    """

    noise_multiplier: float
    count: int
    sampling: Sampling = "everyone"
    share: float = 1.0
    population: int = 0


@lru_cache(maxsize=4096)
def epsilon(charges: tuple[Charge, ...], delta: float, accountant: Accountant) -> float:
    """Return the epsilon that all charges together have spent at `delta`; 0 for none.

    Args:
        charges: of one kind of neighbours: a "fixed" one makes it "what one member holds" for all.
        delta: in (0, 1).
        accountant: "rdp" or "pld".
    """
    charges = tuple(charge for charge in charges if charge.count)
    if not charges:
        return 0.0
    found = _accountant(charges, accountant)
    with _quiet():
        for charge in charges:
            found.compose(_event(charge, charges), charge.count)
        return float(found.get_epsilon(delta))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what dp-accounting says of orders that it leaves out: epsilon is only larger without them."""
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
    """Return the smallest noise multiplier with which charges stay within a budget.

    Args:
        charges: gives the charges for a noise multiplier; more noise must not cost more.
        budget: epsilon, above 0; delta, accountant: as for `epsilon`.

    Raises:
        BudgetError: no noise is enough, because a part that does not depend on it spends the budget.
    """

    def cost(noise: float) -> float:
        return epsilon(tuple(charges(noise)), delta, accountant)

    high = 1.0
    while cost(high) > budget:
        high *= 2
        if high > _MOST_NOISE:
            raise BudgetError(
                f"no amount of noise keeps epsilon = {budget:g} at delta = {delta:g}",
                hint="raise privacy.epsilon, or lower privacy.statistics_epsilon",
            )
    low = 0.0 if high == 1.0 else high / 2
    while high - low > _FINEST * high:
        middle = (low + high) / 2
        if middle > 0 and cost(middle) <= budget:
            high = middle
        else:
            low = middle
    return high


def neighbours(charges: Sequence[Charge], member: str) -> str:
    """Say which data sets the promise makes hard to tell apart; `member`: "client" or "training row"."""
    if any(charge.sampling == "fixed" for charge in charges):
        return f"differ in all that one {member} holds"
    return f"differ by the presence of one {member}"


def _relation(charges: Sequence[Charge]) -> NeighboringRelation:
    from dp_accounting import NeighboringRelation  # takes a second to import

    fixed = any(charge.sampling == "fixed" for charge in charges)
    return NeighboringRelation.REPLACE_ONE if fixed else NeighboringRelation.ADD_OR_REMOVE_ONE


def _accountant(charges: Sequence[Charge], accountant: Accountant) -> Any:
    if accountant == "pld":
        from dp_accounting.pld import PLDAccountant

        return PLDAccountant(_relation(charges))
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant(neighboring_relation=_relation(charges))


def _event(charge: Charge, all_charges: Sequence[Charge]) -> DpEvent:
    import dp_accounting

    # What one member holds changes: its part leaves the sum and another one comes in.
    replaced = any(other.sampling == "fixed" for other in all_charges)
    sensitivity = 2 if replaced else 1
    gaussian = dp_accounting.GaussianDpEvent(charge.noise_multiplier / sensitivity)
    if charge.sampling == "poisson" and charge.share < 1:
        return dp_accounting.PoissonSampledDpEvent(charge.share, gaussian)
    if charge.sampling == "fixed" and charge.share < 1:
        size = round(charge.share * charge.population)
        return dp_accounting.SampledWithoutReplacementDpEvent(charge.population, size, gaussian)
    return gaussian
