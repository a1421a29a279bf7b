"""The arithmetic of attacks: ROC, likelihood ratios, and the bound of epsilon, against hand and theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from shoal.common.seeds import generator
from shoal.simulations.leakage import lira
from shoal.simulations.leakage.bounds import best_bound, epsilon_at_least, p_value
from shoal.simulations.leakage.membership import losses
from shoal.simulations.leakage.roc import clopper_pearson, curve, hits_at, separation, thinned

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=30)


def test_curve_by_hand() -> None:
    """Threshold 3 calls one of three members; 2 all members and one of two others; 1 everybody."""
    drawn = curve(np.array([3.0, 2.0, 2.0]), np.array([2.0, 1.0]))
    assert drawn.fpr.tolist() == [0, 0, 1 / 2, 1]
    assert drawn.tpr.tolist() == [0, 1 / 3, 1, 1]


@given(SCORES, SCORES)
def test_curve_is_sklearns(members: list[int], others: list[int]) -> None:
    a, b = np.array(members, float), np.array(others, float)
    labels = [1] * len(a) + [0] * len(b)
    fpr, tpr, _ = roc_curve(labels, [*a, *b], drop_intermediate=False)
    drawn = curve(a, b)
    np.testing.assert_allclose(drawn.fpr, fpr)
    np.testing.assert_allclose(drawn.tpr, tpr)
    found = separation(a, b, generator(1, "audit"), 0)
    assert found.auc.value == pytest.approx(roc_auc_score(labels, [*a, *b]))


def test_area_by_hand() -> None:
    """Of 3 x 2 pairs the member wins 2 + 1 + 1 and ties twice: (4 + 2/2) / 6."""
    found = separation(np.array([3.0, 2.0, 2.0]), np.array([2.0, 1.0]), generator(1, "audit"), 0)
    assert found.auc.value == pytest.approx(5 / 6)


def test_hits_count_members_above_the_allowed_false_alarms() -> None:
    """1 % of 200 others are 2, here 199 and 198: whoever is above the third, 197, is found."""
    others = np.arange(200, dtype=float)
    members = np.concatenate([np.full(30, 197.5), np.full(70, 100.0)])
    found = hits_at(0.01, members, others).tpr
    assert found is not None
    assert found.value == pytest.approx(0.3)
    # The rate of the highest score is below 1 % with 1 - 0.99^200 = 87 % only: not sure enough for a limit.
    assert found.low == 0
    # P(Beta(6, 195) < 1 %) = P(Bin(200, 1 %) ≥ 6) = 1.6 % and P(Bin ≥ 7) = 0.4 %: the 7th highest, 193.
    assert found.high == clopper_pearson(30, 100, 0.975)[1]


@pytest.mark.parametrize(("fpr", "rows"), [(0.001, 1000), (0.001, 8000), (0.01, 400)])
def test_the_interval_of_hits_contains_the_true_rate(fpr: float, rows: int) -> None:
    """Scores N(1, 1) and N(0, 1): the true rate is 1 - Φ(z - 1), with z the quantile of the others.

    The interval at the threshold taken held it in 33 % of repetitions with 1,000 rows. Of 300 repetitions at
    95 %, fewer than 93 % contain it with a chance of 7 %; Bonferroni leaves a margin.
    """
    true = stats.norm.sf(stats.norm.isf(fpr) - 1)
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        found = hits_at(fpr, rng.normal(1, 1, rows), rng.normal(size=rows)).tpr
        assert found is not None
        covered += found.low <= true <= found.high
    assert covered >= 0.93 * 300
    if rows == 8000:
        assert found.low > 0


def test_a_rate_that_cannot_be_seen_is_not_reported() -> None:
    found = hits_at(0.001, np.ones(500), np.zeros(999))
    assert found.tpr is None
    assert found.needs == 1000
    assert hits_at(0.001, np.ones(500), np.zeros(1000)).tpr is not None


def test_finest_rate_is_one_false_alarm() -> None:
    found = separation(np.array([2.0, 0.5]), np.array([1.0, 0.0, 0.0, 0.0]), generator(1, "audit"), 0).finest
    assert (found.fpr, found.needs) == (1 / 4, 4)
    assert found.tpr is not None
    assert found.tpr.value == 1.0  # the threshold 0.5 calls both members, and one other


def test_exact_interval_by_hand() -> None:
    """With no success of n, the upper limit solves (1 - p)^n = 0.025; with n of n, the lower p^n = 0.025."""
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025 ** (1 / 10)))
    assert clopper_pearson(10, 10) == pytest.approx((0.025 ** (1 / 10), 1))


def test_thinned_curve_keeps_points_of_the_curve_and_its_ends() -> None:
    rng = np.random.default_rng(0)
    drawn = curve(rng.normal(1, 1, 5000), rng.normal(0, 1, 5000))
    kept = thinned(drawn)
    points = set(zip(drawn.fpr.tolist(), drawn.tpr.tolist(), strict=True))
    assert set(zip(kept["fpr"], kept["tpr"], strict=True)) <= points
    assert (kept["fpr"][-1], kept["tpr"][-1]) == (1, 1)
    assert len(kept["fpr"]) <= 200
    assert 0 < kept["fpr"][1] <= 2 / 5000  # the low end is there


def test_losses_and_log_odds_by_hand() -> None:
    binary, labels = np.array([[0.8], [0.8]], np.float32), np.array([1, 0])
    np.testing.assert_allclose(losses("binary", labels, binary), [-math.log(0.8), -math.log(0.2)], rtol=1e-6)
    np.testing.assert_allclose(lira.log_odds(labels, binary), [math.log(4), -math.log(4)], rtol=1e-6)
    three = np.array([[0.5, 0.3, 0.2]], np.float32)
    np.testing.assert_allclose(lira.log_odds(np.array([1]), three), [math.log(0.3 / 0.7)], rtol=1e-6)
    values = np.array([[1.5]], np.float32)
    assert losses("regression", np.array([1.0], np.float32), values).tolist() == [0.25]


def test_likelihood_ratio_by_hand() -> None:
    """One row. Seen: 2, 4 (mean 3); not seen: 0, 2 (mean 1); pooled variances (1 + 1) / 1 = 2 each.

    At 3 the online score is ((3 - 1)² - (3 - 3)²) / (2 · 2) = 1, the offline one (3 - 1) / √2.
    """
    shadows = np.array([[2.0], [4.0], [0.0], [2.0]])
    inside = np.array([[True], [True], [False], [False]])
    assert lira.online(np.array([3.0]), shadows, inside) == pytest.approx([1.0])
    assert lira.offline(np.array([3.0]), shadows, inside) == pytest.approx([2 / math.sqrt(2)])


@pytest.mark.parametrize("shadows", [16, 64])
def test_likelihood_ratio_finds_what_normal_scores_allow(shadows: int) -> None:
    """Rows seen score N(m + 1, 1), others N(m, 1), with a mean of each row: the best AUC is Φ(1/√2) = 0.760.

    A threshold on the score itself sees the spread of m too, N(0, 4²): Φ(1/√(2 + 2 · 16)) = 0.568.
    """
    rng = np.random.default_rng(0)
    rows = 4000
    mean = rng.normal(0, 4, rows)
    inside = rng.random((shadows, rows)) < 0.5
    values = mean + inside + rng.standard_normal((shadows, rows))
    member = rng.random(rows) < 0.5
    target = mean + member + rng.standard_normal(rows)
    usable = lira.scorable(inside)
    assert usable.mean() > 0.99
    best = stats.norm.cdf(1 / math.sqrt(2))
    for attack, least in ((lira.online, best - 0.04), (lira.offline, best - 0.04)):
        score = attack(target[usable], values[:, usable], inside[:, usable])
        assert least < roc_auc_score(member[usable], score) < best + 0.02
    plain = stats.norm.cdf(1 / math.sqrt(34))
    assert roc_auc_score(member, target) == pytest.approx(plain, abs=0.03)


def test_rows_that_all_shadows_or_none_saw_are_not_scorable() -> None:
    inside = np.array([[True, True, False], [True, False, False]])
    assert lira.scorable(inside).tolist() == [False, True, False]


def test_all_guesses_right_and_no_delta() -> None:
    """The chance of n right guesses is (e^ε / (1 + e^ε))^n, which is 5 % at ε = logit(0.05^(1/n))."""
    for n in (10, 100):
        right = 0.05 ** (1 / n)
        assert epsilon_at_least(n, n, n, 0.0) == pytest.approx(math.log(right / (1 - right)), abs=2e-4)


def test_half_the_guesses_right_proves_nothing() -> None:
    assert epsilon_at_least(100, 100, 50, 1e-5) == 0


def test_delta_term_by_hand() -> None:
    """Two coins, ε = 0: f(2) = 1/4, f(1) = 3/4, f(0) = 1.

    The largest of (3/4 - 1/4)/1 and (1 - 1/4)/2 is 1/2: the bound is 1/4 + 2 · 2 · δ · 1/2.
    """
    assert p_value(2, 2, 2, 0.0, 0.01) == pytest.approx(0.25 + 0.02)


@given(st.integers(8, 60), st.data(), st.floats(0, 5), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_p_value_grows_with_epsilon_and_delta_and_falls_with_hits(
    guesses: int, data: st.DataObject, epsilon: float, delta: float
) -> None:
    correct = data.draw(st.integers(1, guesses))
    pure = p_value(guesses, guesses, correct, epsilon, 0.0)
    assert pure <= p_value(guesses, guesses, correct, epsilon + 0.5, 0.0)
    assert pure <= p_value(guesses, guesses, correct - 1, epsilon, 0.0)
    assert pure <= p_value(guesses, guesses, correct, epsilon, delta) <= 1


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_bound_of_randomised_response_holds_and_comes_near(epsilon: float) -> None:
    """Each coin is told truly with chance e^ε / (1 + e^ε): exactly ε-private, and nothing leaks more.

    In 200 audits the bound may exceed ε in 5 %: at most 17 times, of which the chance is 97 % even if each
    audit fails with 5 %. The scores break ties between equal answers at random, as real ones do.
    """
    rng = np.random.default_rng(1)
    right = 1 / (1 + math.exp(-epsilon))
    bounds = []
    for _ in range(200):
        coins = rng.random(1000) < 0.5
        told = np.where(rng.random(1000) < right, coins, ~coins)
        bounds.append(best_bound(told + rng.random(1000) / 2, coins, 0.0).epsilon)
    assert stats.binom.cdf(17, 200, 0.05) > 0.97
    assert sum(bound > epsilon + 1e-3 for bound in bounds) <= 17
    assert np.mean(bounds) >= 0.75 * epsilon


def test_bound_of_perfect_guesses_is_that_of_all_of_them() -> None:
    coins = np.arange(100) % 2 == 0
    found = best_bound(coins.astype(float), coins, 0.0)
    assert (found.guesses, found.correct) == (100, 100)
    right = (0.05 / 4) ** (1 / 100)  # 100, 50, 25, 12 guesses are tried
    assert found.epsilon == pytest.approx(math.log(right / (1 - right)), abs=2e-4)
