"""What DP-SGD promises a single row, and the noise that it takes.

Each step takes each row with the same probability q, on its own, and adds Gaussian noise of z times the
clipping norm to the sum of clipped gradients: the Poisson-sampled Gaussian mechanism, composed over all steps
of all rounds (Abadi et al.: Deep Learning with Differential Privacy, CCS 2016; Mironov, Talwar, Zhang: Rényi
Differential Privacy of the Sampled Gaussian Mechanism, 2019; for losses by distribution, Koskela, Jälkö,
Honkela: Computing Tight Differential Privacy Guarantees Using FFT, AISTATS 2020). Two data sets are
neighbours if one has one row more. The sums are dp-accounting's.

The number of rows a client holds is taken as known: q and the number of steps follow from it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from common.config import PrivacyConfig, TrainingConfig
from common.errors import BudgetError, ConfigError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Accountant = Literal["rdp", "pld"]

# A target is met from below, and in sums of floats that may differ by an ulp between machines.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """How a client of some size trains under a budget.

    Attributes:
        noise_multiplier: standard deviation of the noise on a sum of gradients, as a multiple of clip_norm.
        sampling_probability: of each row in each step, in (0, 1].
        steps_a_round: optimisation steps; rounds: that the noise was chosen for, all with this client.
        delta: chance with which the promise may fail.
        budget: epsilon that all rounds together may spend; infinite where only the noise was given.
        accountant: how epsilon is added up.
    """

    noise_multiplier: float
    sampling_probability: float
    steps_a_round: int
    rounds: int
    delta: float
    budget: float
    accountant: Accountant


def record_plan(privacy: PrivacyConfig, training: TrainingConfig, rows: int) -> RecordPlan:
    """Return the plan of a client.

    Args:
        privacy: noise_multiplier, or epsilon to solve it from; statistics_epsilon is left to the statistics.
        training: rounds, and batch size and epochs (or steps) of each.
        rows: training rows of the client, at least 1.

    Raises:
        ConfigError: neither the noise nor a budget is given, or the statistics take all of it.
    """
    q = min(1.0, training.batch_size / rows)
    steps = training.local_steps or training.local_epochs * math.ceil(rows / training.batch_size)
    budget = math.inf
    if privacy.epsilon is not None:
        budget = privacy.epsilon - (privacy.statistics_epsilon or 0.0)
    noise = privacy.noise_multiplier
    if noise is None:
        if not 0 < budget < math.inf:
            raise ConfigError(
                "privacy: no noise can be found for the rows",
                hint="set privacy.noise_multiplier, or privacy.epsilon above privacy.statistics_epsilon",
            )
        noise = _solve(budget, privacy.delta, privacy.accountant, q, steps * training.rounds)
    return RecordPlan(noise, q, steps, training.rounds, privacy.delta, budget, privacy.accountant)


def epsilon_after(plan: RecordPlan, rounds: int) -> float:
    """Return the epsilon at `plan.delta` that a client has spent after taking part in `rounds` rounds."""
    steps = plan.steps_a_round * rounds
    return _epsilon(plan.noise_multiplier, plan.delta, plan.accountant, plan.sampling_probability, steps)


def require_budget(plan: RecordPlan, number: int) -> None:
    """Refuse a round that a client's rows have no budget for.

    Args:
        plan: of the client; number: of the round, starting at 1.

    Raises:
        BudgetError: the round is beyond the plan, or its epsilon beyond the budget.
    """
    if number > plan.rounds:
        raise BudgetError(
            f"round {number} was asked for, but the noise was chosen for {plan.rounds} rounds",
            hint="start a new run with training.rounds as large as wanted: its noise is chosen for them",
        )
    most = plan.budget * (1 + _ROUNDING)
    if (
        epsilon_after(plan, plan.rounds) <= most
    ):  # as it does wherever the noise was solved for; earlier is less
        return
    spent = epsilon_after(plan, number)
    if spent > most:
        raise BudgetError(
            f"after round {number} the rows would have epsilon = {spent:.4g} at delta = {plan.delta:g}, "
            f"more than the budget of {plan.budget:g}",
            hint="raise privacy.noise_multiplier, leave it out (it is then solved for), or take fewer rounds",
        )


@lru_cache(maxsize=4096)  # clients of one size have one plan
def _solve(epsilon: float, delta: float, accountant: Accountant, q: float, steps: int) -> float:
    """Return the least noise multiplier, to 1e-4, whose epsilon is at most the target."""
    import dp_accounting  # takes a second

    with _quiet():
        found: float = dp_accounting.calibrate_dp_mechanism(
            lambda: _fresh(accountant), lambda z: _event(z, q, steps), epsilon, delta, tol=1e-4
        )
    return found


@lru_cache(maxsize=65_536)
def _epsilon(z: float, delta: float, accountant: Accountant, q: float, steps: int) -> float:
    if not steps:
        return 0.0
    with _quiet():
        spent = float(_fresh(accountant).compose(_event(z, q, steps)).get_epsilon(delta))
    return spent


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


def _fresh(accountant: Accountant) -> Any:
    from dp_accounting import NeighboringRelation

    if accountant == "pld":
        from dp_accounting.pld import PLDAccountant

        return PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)


def _event(z: float, q: float, steps: int) -> DpEvent:
    import dp_accounting

    once = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))
    return dp_accounting.SelfComposedDpEvent(once, steps)
