"""The private mean against sums worked out by hand, and Poisson samples against their distribution."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from shoal.common.config import Scenario, StrategyConfig
from shoal.common.flower_shim import identify_process
from shoal.common.messages.names import ARRAYS
from shoal.common.privacy.noise import SLACK
from shoal.common.privacy.plan import ClientPrivacyPlan, divided, make_plan
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.server.aggregation import PrivateMean
from shoal.server.sampling import train_cohort
from shoal.server.update_sum import UpdateSum

START = [np.array([1.0, 2.0], np.float32), np.array([[7.0]], np.float32)]
CLIENTS = 4


@pytest.fixture(autouse=True, scope="module")
def _process() -> None:
    identify_process(1)


def total(*updates: list[float], within: float = 0.0) -> UpdateSum:
    """Return the sum of clients' updates of weight 1."""
    sums = np.sum([np.zeros(2), *updates], axis=0)
    return UpdateSum([sums, np.zeros((1, 1))], len(updates), within, loss=1.0, examples=10.0 * len(updates))


def scenario(**privacy: object) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "test",
            "data": {"source": "digits"},
            "model": {"name": "mlp"},
            "privacy": {"unit": "client", "noise_multiplier": 1.0, "clip_norm": 3.0, **privacy},
        }
    )


def private(asked: Scenario) -> PrivateMean:
    return PrivateMean(asked, make_plan(asked, CLIENTS), CLIENTS, "seeded")


def moved(
    aggregation: PrivateMean, number: int, found: UpdateSum, start: list[np.ndarray] = START
) -> list[Any]:
    """Return the weights that the strategy sees."""
    noised = aggregation.noised(number, found)
    reply = aggregation.reply(noised, weights_to_record(start))
    return record_to_weights(reply.content.array_records[ARRAYS])


def zeros(n: int) -> UpdateSum:
    return UpdateSum([np.zeros(n)], 0.0, 0.0, math.nan, 0.0)


def test_the_mean_is_over_the_clients_there_could_be() -> None:
    """Two of four clients answered (1, 0) and (0, 2): the start moves by a quarter of their sum, not half."""
    aggregation = private(scenario(noise_multiplier=1e-9))
    found = moved(aggregation, 1, total([1, 0], [0, 2]))
    np.testing.assert_allclose(found[0], [1 + 0.25, 2 + 0.5], rtol=1e-6)
    np.testing.assert_allclose(found[1], START[1], rtol=1e-6)
    assert found[0].dtype == np.float32


def test_noise_is_the_clipping_norm_s_multiple_over_the_cohort() -> None:
    """z C / clients = 2 · 3 / 4 = 1.5; over n numbers the sample deviation deviates by 1.5 / √(2n)."""
    n = 100_000
    aggregation = private(scenario(noise_multiplier=2.0))
    found = moved(aggregation, 1, zeros(n), [np.zeros(n, np.float32)])
    expected = 1.5 * SLACK
    assert abs(found[0].std() - expected) < 5 * expected / math.sqrt(2 * n)


def test_a_round_without_clients_is_noise_all_the_same() -> None:
    """Else an empty round would tell that nobody was drawn."""
    aggregation = private(scenario())
    found = moved(aggregation, 1, total())
    assert not np.array_equal(found[0], START[0])


def test_rounds_get_noise_of_their_own_and_the_same_again() -> None:
    found = [moved(private(scenario()), number, total())[0] for number in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_clipping_norm_moves_towards_the_quantile() -> None:
    """All four within: share 1 against 1/2 wanted, so C shrinks by e^(-0.2 · 0.5); all cut: it grows so.

    The count's noise has σ = 4 / 20, which moves the exponent by 0.2 · σ / 4 = 0.01: five of it are 5 %.
    """
    for within, factor in ((0.5, math.exp(-0.1)), (-0.5, math.exp(0.1))):
        aggregation = private(scenario(noise_multiplier=1e-6, clipping="adaptive"))
        moved(aggregation, 1, total(*[[0.0, 0.0]] * CLIENTS, within=CLIENTS * within))
        assert aggregation.clip_norm() == pytest.approx(3.0 * factor, rel=0.05)
        again = private(scenario(noise_multiplier=1e-6, clipping="adaptive"))
        again.restore(aggregation.state())
        assert again.clip_norm() == aggregation.clip_norm()


def test_the_count_of_cut_updates_costs_part_of_the_noise() -> None:
    """With the paper's σ = cohort / 20 where that is cheap: 100 clients, σ = 5, z = 0.5."""
    asked = scenario(noise_multiplier=0.5, clipping="adaptive")
    n = 100_000
    plan = ClientPrivacyPlan(0.5, "everyone", 1.0, 0, (), 1e-5, "rdp", math.inf)
    aggregation = PrivateMean(asked, plan, 100, "seeded")
    found = moved(aggregation, 1, zeros(n), [np.zeros(n, np.float32)])
    expected = divided(0.5, 100).update * 3.0 * SLACK / 100
    assert expected > 0.5 * 3.0 / 100
    assert abs(found[0].std() - expected) < 5 * expected / math.sqrt(2 * n)


@pytest.mark.parametrize("source", ["seeded", "system"])
def test_poisson_samples_take_each_client_by_itself(source: str) -> None:
    """5 clients with probability 0.4, 4,000 rounds: sizes are binomial.

    Expected rounds by size: 4000 · C(5, k) · 0.4^k · 0.6^(5-k). Chi-square has 5 degrees of freedom: it is
    above 41.1 in one of 10^7 fair samplers; the system's draws are other ones each time.
    """
    strategy = StrategyConfig(clients_per_round=2, sampling="poisson")
    rounds = 4000
    drawn = [tuple(train_cohort(strategy, 1, r, 5, source)) for r in range(1, rounds + 1)]  # type: ignore[arg-type]
    sizes = Counter(map(len, drawn))
    expected = [rounds * math.comb(5, k) * 0.4**k * 0.6 ** (5 - k) for k in range(6)]
    assert sum((sizes[k] - e) ** 2 / e for k, e in enumerate(expected)) < 41.1
    each = Counter(client for cohort in drawn for client in cohort)
    deviation = math.sqrt(rounds * 0.4 * 0.6)
    assert all(abs(each[client] - rounds * 0.4) < 5 * deviation for client in range(5))
    assert all(list(cohort) == sorted(cohort) for cohort in drawn)


def test_a_fixed_sample_from_the_system_is_as_large_as_asked_for_and_fair() -> None:
    """2 of 5: 10 pairs, 300 expected each; chi-square with 9 degrees is above 50.3 once in 10^7."""
    strategy = StrategyConfig(clients_per_round=2)
    drawn = Counter(tuple(train_cohort(strategy, 1, 1, 5, "system")) for _ in range(3000))
    assert len(drawn) == 10
    assert sum((count - 300) ** 2 / 300 for count in drawn.values()) < 50.3
