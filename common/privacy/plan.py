"""The noise of units "client" and "local": given, or calculated from the budget of the whole run.

Unit "record" has a separate plan for each client (`common/privacy/record.py`), because its sampling depends
on the client's rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shoal.common.config import PrivacyConfig, Scenario
from shoal.common.errors import BudgetError
from shoal.common.privacy.accounting import Accountant, Charge, Sampling, epsilon, over, solve_noise
from shoal.common.privacy.mechanisms import mechanism_of, trusts_server
from shoal.common.privacy.noise import SLACK

# Maximum share of a round's privacy (as 1 / z²) for counting the clipped updates, if the paper's choice of
# noise, a twentieth of the cohort, would take more.
_COUNT_SHARE: Final = 0.1
_NAMES_SHARE: Final = 1e-3  # of delta: for the unlikely event that a name of a single member is published


def delta_of_names(privacy: PrivacyConfig) -> float:
    """Return the part of privacy.delta reserved for publishing noisy names; 0 if there are none."""
    return 0.0 if privacy.statistics_epsilon is None else _NAMES_SHARE * privacy.delta


@dataclass(frozen=True, slots=True)
class ClientPrivacyPlan:
    """The noise and accounting of a run that protects clients.

    Attributes:
        noise_multiplier: of a whole round: standard deviation over clip_norm.
        sampling, share, population: of clients, as in `Charge`; sampling is "everyone" where the accounting
            does not use it, whatever the share of clients in a round.
        before: charges before the first round (statistics).
        delta, accountant: of the accounting.
        budget: maximum epsilon; infinite if not set.
    """

    noise_multiplier: float
    sampling: Sampling
    share: float
    population: int
    before: tuple[Charge, ...]
    delta: float
    accountant: Accountant
    budget: float

    def charges(self, rounds: int) -> tuple[Charge, ...]:
        """Return all charges of a member after it took part in `rounds` rounds."""
        return (
            *self.before,
            Charge(self.noise_multiplier, rounds, self.sampling, self.share, self.population),
        )

    def epsilon(self, rounds: int) -> float:
        """Return the epsilon spent after `rounds` rounds in which a member could take part."""
        return epsilon(self.charges(rounds), self.delta, self.accountant)

    def charges_of_a_member(self, rounds: int) -> tuple[Charge, ...]:
        """Return the charges of a member that is known to have taken part in `rounds` rounds."""
        # with the same kind of neighbours, so that both figures can be compared
        sampling: Sampling = "fixed" if self.sampling == "fixed" else "everyone"
        return (*self.before, Charge(self.noise_multiplier, rounds, sampling))

    def require(self, rounds: int) -> None:
        """Raise if there is no budget for another round.

        Args:
            rounds: number of rounds of a member, including this one.

        Raises:
            BudgetError: the round would exceed the budget.
        """
        spent = self.epsilon(rounds)
        if over(spent, self.budget):
            raise BudgetError(
                f"after round {rounds} this client would have spent epsilon = {spent:.4g} at delta = "
                f"{self.delta:g}, more than the budget of {self.budget:g}",
                hint="start a new run with a larger privacy.epsilon, or with more noise",
            )


def make_plan(scenario: Scenario, clients: int, before: tuple[Charge, ...] = ()) -> ClientPrivacyPlan:
    """Return the plan of a scenario with unit "client" or "local".

    Args:
        scenario: for budget, rounds and cohort; clients: number in the federation.
        before: what is charged before the first round.

    Raises:
        BudgetError: no noise is enough.
    """
    privacy, size = scenario.privacy, scenario.strategy.clients_per_round
    mechanism = mechanism_of(privacy)
    sampling: Sampling = "everyone"
    share, population = 1.0, 0
    if mechanism.server_noise and 0 < size < clients:
        share = size / clients
        # The server knows whom it asks, so sampling does not help against it, but only where it is trusted.
        if trusts_server(scenario):
            sampling = scenario.strategy.sampling
            population = clients if sampling == "fixed" else 0
    budget = math.inf if privacy.epsilon is None else privacy.epsilon
    noise, delta = privacy.noise_multiplier, privacy.delta - delta_of_names(privacy)
    # An update can be anything of norm up to clip_norm: two of them differ by up to twice that.
    sides = mechanism.norms_apart
    if noise is None:
        rest = (sampling, share, population, before, budget, delta, privacy.accountant)
        noise = sides * _solved(scenario.training.rounds, *rest)
    return ClientPrivacyPlan(
        noise / sides, sampling, share, population, before, delta, privacy.accountant, budget
    )


@lru_cache(maxsize=64)
def _solved(
    rounds: int,
    sampling: Sampling,
    share: float,
    population: int,
    before: tuple[Charge, ...],
    budget: float,
    delta: float,
    accountant: Accountant,
) -> float:
    def charges(noise: float) -> tuple[Charge, ...]:
        return (*before, Charge(noise, rounds, sampling, share, population))

    return solve_noise(charges, budget, delta, accountant)


@dataclass(frozen=True, slots=True)
class SumNoise:
    """Standard deviations of the noise in a round's sum, each in the unit of its numbers; 0 adds none.

    Attributes:
        update: of each number of the update; within: of the count of updates within the clip norm.
    """

    update: float = 0.0
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """The division of a round's noise between the sum of updates and the count of clipped updates.

    Attributes:
        update: noise multiplier of the sum of updates.
        count: standard deviation of the noise on the number of updates within clip_norm.
    """

    update: float
    count: float


def central_noise(scenario: Scenario, plan: ClientPrivacyPlan, clients: int, clip_norm: float) -> SumNoise:
    """Return the noise of a round's sum under unit "client".

    Args:
        scenario, plan: of the run; clients: in the federation; clip_norm: of the round.
    """
    if scenario.privacy.clipping == "fixed":
        return SumNoise(plan.noise_multiplier * clip_norm * SLACK)
    split = divided(plan.noise_multiplier, plan.share * clients)
    return SumNoise(split.update * clip_norm * SLACK, split.count)


def divided(noise_multiplier: float, cohort: float) -> Split:
    """Divide a round's noise for adaptive clipping, so that both parts together cost the same.

    Andrew, Thakkar, McMahan, Ramaswamy: Differentially Private Learning with Adaptive Clipping, NeurIPS
    2021, theorem 1: z = (z_update^-2 + (2 σ_count)^-2)^(-1/2), where bits are centred at 1/2, so that one
    changes the count by at most 1/2. The paper takes σ_count = cohort / 20; with small cohorts that would
    take most of the budget, so it takes at most a tenth here.

    Args:
        noise_multiplier: z; cohort: clients in a round, or their expected number.
    """
    least = noise_multiplier / (2 * math.sqrt(_COUNT_SHARE))
    count = max(cohort / 20, least)
    return Split((noise_multiplier**-2 - (2 * count) ** -2) ** -0.5, count)
