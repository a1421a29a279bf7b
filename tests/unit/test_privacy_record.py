"""Epsilon of DP-SGD is what others have published, and rounds beyond the budget are refused."""

from __future__ import annotations

import logging
import math
from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from shoal.common.config import PrivacyConfig, TrainingConfig
from shoal.common.errors import BudgetError
from shoal.common.privacy.accounting import Charge
from shoal.common.privacy.record import RecordPlan, epsilon_after, record_plan, require_budget


def plan(noise: float, q: float, steps: int, accountant: Any = "rdp", rounds: int = 1) -> RecordPlan:
    return RecordPlan(noise, q, steps, rounds, delta=1e-5, budget=math.inf, accountant=accountant)


def made(rows: int, privacy: dict[str, Any], **training: Any) -> RecordPlan:
    given = PrivacyConfig.model_validate({"unit": "record", **privacy})
    return record_plan(given, TrainingConfig.model_validate(training), rows)


@pytest.mark.parametrize(
    ("rows", "batch", "noise", "epochs", "delta", "accountant", "published", "digits"),
    [
        # github.com/tensorflow/privacy, compute_dp_sgd_privacy_lib_test.py: test_compute_dp_sgd_privacy
        (60_000, 150, 1.3, 15, 1e-5, "rdp", 0.7242234026, 1e-9),
        (100_000, 100, 1.0, 30, 1e-7, "rdp", 1.4154988495, 1e-9),
        # the same file's statements for 10,000 examples, noise 2.0 "with microbatching", which there doubles
        # the sensitivity: noise 1.0 for ours, whose micro-batches leave it as it is
        (10_000, 64, 1.0, 5, 1e-6, "rdp", 1.616, 5e-4),
        (10_000, 64, 1.0, 5, 1e-6, "pld", 1.199, 5e-4),
    ],
)
def test_epsilon_is_what_tensorflow_privacy_publishes(
    rows: int,
    batch: int,
    noise: float,
    epochs: int,
    delta: float,
    accountant: Any,
    published: float,
    digits: float,
) -> None:
    """It takes ⌈epochs · rows / batch⌉ steps, ours are epochs · ⌈rows / batch⌉: given as local_steps."""
    steps = math.ceil(epochs * rows / batch)
    privacy = {"noise_multiplier": noise, "delta": delta, "accountant": accountant}
    found = made(rows, privacy, batch_size=batch, local_steps=steps, rounds=1)
    assert epsilon_after(found, 1) == pytest.approx(published, abs=digits)


def test_the_tutorial_s_three_is_the_older_conversion_of_the_same_divergences() -> None:
    """MNIST tutorial: 60,000 rows, batches of 256, noise 1.1, 60 epochs give eps = 3.01 at delta = 1e-5.

    That is github.com/tensorflow/privacy, tutorials/walkthrough: the least over the orders a of
    rdp(a) + ln(1 / delta) / (a - 1) (Mironov 2017, proposition 3). dp-accounting converts more tightly
    (Canonne, Kamath, Steinke 2020, proposition 12), so that ours is lower.
    """
    steps, q = 60 * 60_000 // 256, 256 / 60_000
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    accountant = RdpAccountant(orders)
    once = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(1.1))
    accountant.compose(once, steps)
    older = min(r + math.log(1e5) / (a - 1) for r, a in zip(accountant._rdp, orders, strict=True))
    assert older == pytest.approx(3.01, abs=5e-3)
    assert 2.5 < epsilon_after(plan(1.1, q, steps), 1) < older


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_epsilon_is_dp_accounting_s_over_all_steps_of_the_rounds(accountant: Any) -> None:
    direct = RdpAccountant() if accountant == "rdp" else PLDAccountant()
    once = dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(1.2))
    direct.compose(once, 3 * 40)
    found = epsilon_after(plan(1.2, 0.05, 40, accountant, rounds=9), 3)
    assert found == pytest.approx(direct.get_epsilon(1e-5), rel=1e-9)


@pytest.mark.parametrize(("rows", "accountant"), [(20, "rdp"), (300, "rdp"), (20, "pld")])
def test_the_noise_is_the_least_that_keeps_the_budget(rows: int, accountant: Any) -> None:
    """Also where the batch is all rows: q = 1. A thousandth less noise would break the budget."""
    found = made(rows, {"epsilon": 3.0, "accountant": accountant}, rounds=5, local_epochs=2, batch_size=32)
    assert found.sampling_probability == min(1, 32 / rows)
    assert found.steps_per_round == 2 * math.ceil(rows / 32)
    assert 2.9 < epsilon_after(found, 5) <= 3.0
    z, q = found.noise_multiplier * 0.999, found.sampling_probability
    assert epsilon_after(plan(z, q, found.steps_per_round, accountant), 5) > 3.0
    for number in range(1, 6):
        require_budget(found, number)


def test_what_the_statistics_have_spent_is_not_spent_on_training() -> None:
    """One Gaussian with z = 4 costs epsilon 1.1 at delta = 1e-5; the rounds add to it, up to the budget."""
    before = (Charge(4.0, 1),)
    private = PrivacyConfig(unit="record", epsilon=3.0)
    found = record_plan(private, TrainingConfig(rounds=5), 300, before)
    assert found.noise_multiplier > made(300, {"epsilon": 3.0}, rounds=5).noise_multiplier
    assert 1.0 < epsilon_after(found, 0) < 1.3
    assert 2.9 < epsilon_after(found, 5) <= 3.0


def test_a_round_beyond_the_plan_is_refused() -> None:
    found = made(300, {"noise_multiplier": 1.0}, rounds=5)
    require_budget(found, 5)
    with pytest.raises(BudgetError, match=r"round 6, but .* for 5 rounds") as caught:
        require_budget(found, 6)
    assert caught.value.exit_code == 19


def test_given_noise_stops_before_the_round_that_would_pass_the_budget() -> None:
    found = made(3000, {"noise_multiplier": 1.0, "epsilon": 2.0}, rounds=20)
    spent = [epsilon_after(found, number) for number in range(21)]
    assert spent[0] == 0
    assert spent == sorted(spent)
    last = max(number for number in range(21) if spent[number] <= 2.0)
    assert 0 < last < 20
    require_budget(found, last)
    with pytest.raises(BudgetError, match=f"after round {last + 1} .* budget of 2"):
        require_budget(found, last + 1)


def test_orders_that_do_not_converge_are_not_talked_about(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger("absl").level
    epsilon_after(plan(1.81, 0.64, 4), 1)  # dp-accounting warns of orders from 1.1 on here
    assert not caplog.records
    assert logging.getLogger("absl").level == before
