"""The guarantee of DP-SGD for a single row, and the noise that it needs.

Each step includes each row independently with the same probability q, and adds Gaussian noise of z times the
clipping norm to the sum of clipped gradients: the Poisson-sampled Gaussian mechanism, composed over all steps
of all rounds (Abadi et al.: Deep Learning with Differential Privacy, CCS 2016). Two data sets are neighbours
if one has one more row.

The number of rows of a client is treated as known: q and the number of steps depend on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from shoal.common.config import PrivacyConfig, TrainingConfig
from shoal.common.errors import BudgetError
from shoal.common.privacy.accounting import Accountant, Charge, epsilon, over, solve_noise
from shoal.common.privacy.plan import delta_of_names


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """The noise and accounting of a client with a given number of rows.

    Attributes:
        noise_multiplier: standard deviation of the noise on a sum of gradients, as a multiple of clip_norm.
        sampling_probability: of each row in each step, in (0, 1].
        steps_per_round: optimisation steps; rounds: for which the noise was calculated, all with this client.
        delta: of the guarantee.
        budget: maximum epsilon; infinite if only the noise was given.
        accountant: "rdp" or "pld".
        before: what is charged before the first round (statistics).
    """

    noise_multiplier: float
    sampling_probability: float
    steps_per_round: int
    rounds: int
    delta: float
    budget: float
    accountant: Accountant
    before: tuple[Charge, ...] = ()

    def charges(self, rounds: int) -> tuple[Charge, ...]:
        """Return all charges of a row after this number of rounds."""
        steps = self.steps_per_round * rounds
        return (*self.before, _charge(self.noise_multiplier, self.sampling_probability, steps))


def record_plan(
    privacy: PrivacyConfig, training: TrainingConfig, rows: int, before: tuple[Charge, ...] = ()
) -> RecordPlan:
    """Return the plan of a client.

    Args:
        privacy: noise_multiplier, or epsilon from which to calculate it.
        training: rounds, and batch size and epochs (or steps) of each.
        rows: training rows of the client, at least 1.
        before: what is charged before the first round.

    Raises:
        BudgetError: no noise is enough.
    """
    q = min(1.0, training.batch_size / rows)
    steps = training.local_steps or training.local_epochs * math.ceil(rows / training.batch_size)
    budget = math.inf if privacy.epsilon is None else privacy.epsilon
    noise, delta = privacy.noise_multiplier, privacy.delta - delta_of_names(privacy)
    if noise is None:
        noise = _solved(q, steps * training.rounds, before, budget, delta, privacy.accountant)
    return RecordPlan(noise, q, steps, training.rounds, delta, budget, privacy.accountant, before)


def epsilon_after(plan: RecordPlan, rounds: int) -> float:
    """Return the epsilon at `plan.delta` that a client has spent after taking part in `rounds` rounds."""
    return epsilon(plan.charges(rounds), plan.delta, plan.accountant)


def require_budget(plan: RecordPlan, round_number: int) -> None:
    """Raise if a client's rows have no budget for a round.

    Args:
        plan: of the client; round_number: starting at 1.

    Raises:
        BudgetError: the round is beyond the plan, or its epsilon beyond the budget.
    """
    if round_number > plan.rounds:
        raise BudgetError(
            f"the server asked for round {round_number}, but the noise was calculated for {plan.rounds} "
            "rounds",
            hint="start a new run with a larger training.rounds, for which the noise is then calculated",
        )
    spent = epsilon_after(plan, round_number)
    if over(spent, plan.budget):
        raise BudgetError(
            f"after round {round_number} the rows would have epsilon = {spent:.4g} at delta = "
            f"{plan.delta:g}, more than the budget of {plan.budget:g}",
            hint="raise privacy.noise_multiplier, remove it (it is then calculated), or use fewer rounds",
        )


def _charge(noise: float, q: float, steps: int) -> Charge:
    return Charge(noise, steps, "poisson", q)


@lru_cache(maxsize=4096)  # clients of the same size have the same plan
def _solved(
    q: float, steps: int, before: tuple[Charge, ...], budget: float, delta: float, accountant: Accountant
) -> float:
    return solve_noise(lambda z: (*before, _charge(z, q, steps)), budget, delta, accountant)
