"""Epsilon against published values, closed forms and dp-accounting itself; noise solved for a budget."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy import optimize, stats

from shoal.common.config import Scenario
from shoal.common.errors import BudgetError
from shoal.common.privacy.accounting import Charge, _event, epsilon, neighbours, solve_noise
from shoal.common.privacy.plan import divided, make_plan

# McMahan, Ramage, Talwar, Zhang: Learning Differentially Private Recurrent Language Models, ICLR 2018,
# table 1: users K, expected sample, noise z, rounds → epsilon at delta = K^-1.1.
PUBLISHED = [
    (1e5, 1e2, 1.0, 10**4, 1.18),
    (1e5, 1e2, 1.0, 10**5, 2.21),
    (1e5, 1e2, 1.0, 10**6, 7.50),
    (1e6, 1e4, 1.0, 10**4, 8.49),
    (1e6, 1e4, 1.0, 10**5, 32.38),
    (1e6, 1e4, 1.0, 10**6, 187.01),
    (1e6, 1e3, 3.0, 10**6, 1.95),
]


@pytest.mark.parametrize(("users", "sample", "noise", "rounds", "published"), PUBLISHED)
def test_the_published_epsilons_of_user_level_privacy(
    users: float, sample: float, noise: float, rounds: int, published: float
) -> None:
    """The paper turns Rényi divergence r at order a into r + log(1/δ) / (a - 1), at whole orders.

    dp-accounting's conversion (Canonne, Kamath, Steinke 2020) is r + log(1 - 1/a) - log(δ a) / (a - 1) at one
    order, so r can be had from it. Ours is smaller than the published number, by no more than a third.
    """
    charge = Charge(noise, rounds, "poisson", sample / users)
    delta = users**-1.1
    found = []
    for order in range(2, 65):
        accountant = RdpAccountant(orders=[order])
        accountant.compose(_event(charge, replaced=False), rounds)
        tight = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        divergence = accountant.get_epsilon(delta) - tight
        found.append(divergence + math.log(1 / delta) / (order - 1))
    assert min(found) == pytest.approx(published, abs=0.006)
    assert 0.67 * published < epsilon((charge,), delta, "rdp") < published


def exact_gaussian(noise: float, delta: float) -> float:
    """Epsilon of one Gaussian mechanism: Balle, Wang, ICML 2018, theorem 8, solved by root finding."""

    def gap(eps: float) -> float:
        a, b = 1 / (2 * noise) - eps * noise, -1 / (2 * noise) - eps * noise
        return float(stats.norm.cdf(a) - math.exp(eps) * stats.norm.cdf(b) - delta)

    return float(optimize.brentq(gap, 0, 100))


@pytest.mark.parametrize(("rounds", "noise"), [(1, 1.0), (4, 3.0), (25, 10.0)])
def test_full_participation_is_one_gaussian_with_less_noise(rounds: int, noise: float) -> None:
    """k rounds with noise z are one with z / √k, whose epsilon is known exactly."""
    exact = exact_gaussian(noise / math.sqrt(rounds), 1e-5)
    charges = (Charge(noise, rounds),)
    assert epsilon(charges, 1e-5, "pld") == pytest.approx(exact, rel=2e-3)
    assert exact < epsilon(charges, 1e-5, "rdp") < 1.15 * exact


def test_a_fixed_sample_has_twice_the_sensitivity_and_its_own_amplification() -> None:
    """50 of 1,000: a client's part is replaced, so z = 4 counts as 2 (Wang et al. 2019, theorem 27)."""
    charge = Charge(4.0, 100, "fixed", 0.05, 1000)
    direct = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    gaussian = dp_accounting.GaussianDpEvent(2.0)
    direct.compose(dp_accounting.SampledWithoutReplacementDpEvent(1000, 50, gaussian), 100)
    assert epsilon((charge,), 1e-5, "rdp") == pytest.approx(direct.get_epsilon(1e-5), rel=1e-12)
    everyone = epsilon((Charge(2.0, 100),), 1e-5, "rdp")
    assert epsilon((charge,), 1e-5, "rdp") < everyone
    assert neighbours([charge], "client") == "differ in all data of one client"


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_a_poisson_sample_is_what_dp_accounting_says(accountant: str) -> None:
    charge = Charge(1.1, 200, "poisson", 0.02)
    direct = RdpAccountant() if accountant == "rdp" else PLDAccountant()
    direct.compose(dp_accounting.PoissonSampledDpEvent(0.02, dp_accounting.GaussianDpEvent(1.1)), 200)
    found = epsilon((charge,), 1e-5, accountant)  # type: ignore[arg-type]
    assert found == pytest.approx(direct.get_epsilon(1e-5), rel=1e-12)


def test_nothing_charged_is_nothing_spent() -> None:
    assert epsilon((), 1e-5, "rdp") == 0
    assert epsilon((Charge(1.0, 0),), 1e-5, "rdp") == 0


@pytest.mark.parametrize("budget", [0.5, 3.0, 20.0])
def test_solved_noise_spends_the_budget_and_no_more(budget: float) -> None:
    def charges(noise: float) -> tuple[Charge, ...]:
        return (Charge(8.0, 1), Charge(noise, 20, "poisson", 0.1))

    noise = solve_noise(charges, budget, 1e-5, "rdp")
    assert epsilon(charges(noise), 1e-5, "rdp") <= budget
    assert epsilon(charges(noise * 0.999), 1e-5, "rdp") > budget


def test_a_budget_that_statistics_have_spent_cannot_be_met() -> None:
    """One Gaussian with z = 1 alone costs 4.4 at delta = 1e-5 (Balle, Wang)."""
    with pytest.raises(BudgetError, match="no amount of noise"):
        solve_noise(lambda noise: (Charge(1.0, 1), Charge(noise, 1)), 3.0, 1e-5, "rdp")


def scenario(**privacy: object) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "test",
            "data": {"source": "digits"},
            "model": {"name": "mlp"},
            "privacy": privacy,
            "strategy": {"clients_per_round": 5, "sampling": "poisson"},
        }
    )


def test_a_plan_counts_on_sampling_for_the_server_s_noise_only() -> None:
    """Against the server (local) it is no secret who was asked, and two updates differ by up to 2 C."""
    central = make_plan(scenario(unit="client", noise_multiplier=2.0), 10)
    assert (central.sampling, central.share, central.noise_multiplier) == ("poisson", 0.5, 2.0)
    local = make_plan(scenario(unit="local", noise_multiplier=2.0), 10)
    assert (local.sampling, local.share, local.noise_multiplier) == ("everyone", 1.0, 1.0)


def test_a_plan_solves_for_the_whole_run() -> None:
    asked = scenario(unit="client", epsilon=4.0)
    plan = make_plan(asked, 10)
    rounds = asked.training.rounds
    assert plan.epsilon(rounds) <= 4.0 < plan.epsilon(rounds + 1)


@pytest.mark.parametrize(("noise", "cohort", "count"), [(0.5, 100.0, 5.0), (2.0, 10.0, 2.0 / math.sqrt(0.4))])
def test_noise_is_divided_as_the_theorem_says(noise: float, cohort: float, count: float) -> None:
    """Andrew et al., theorem 1: z^-2 = z_update^-2 + (2 σ)^-2. σ = 100/20; for ten clients σ = 0.5 would
    take (2·0.5)^-2 = 1 of z^-2 = 1/4, so it is z / (2 √0.1) = z / √0.4, which takes a tenth."""
    split = divided(noise, cohort)
    assert split.count == pytest.approx(count)
    assert split.update**-2 + (2 * split.count) ** -2 == pytest.approx(noise**-2)
