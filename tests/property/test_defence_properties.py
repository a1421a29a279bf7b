"""Laws of the robust strategies, for any updates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.common.sites import FIRST_NODE_ID
from shoal.server.strategies.fltrust import FLTrust
from shoal.server.strategies.geometric_median import GeometricMedian
from shoal.server.strategies.norm_clipped import NormClippedMean
from shoal.server.strategies.robust import RobustStrategy
from shoal.server.strategies.weighted_median import WeightedMedian

ALL = (NormClippedMean, GeometricMedian, WeightedMedian, FLTrust)
BLIND = (NormClippedMean, GeometricMedian, WeightedMedian)  # no client is another kind of client


def combined(strategy: RobustStrategy, updates: np.ndarray, examples: np.ndarray) -> np.ndarray:
    nodes = list(range(FIRST_NODE_ID, FIRST_NODE_ID + len(updates)))
    found = strategy.combine(updates.copy(), examples, nodes)
    assert found is not None
    return found


@st.composite
def rounds(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Updates (clients, 4) and examples (clients,)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clients = draw(st.integers(least, 9))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e3]))
    updates = (scale * rng.normal(size=(clients, 4))).astype(np.float32)
    return updates, rng.integers(1, 100, clients).astype(float)


@pytest.mark.parametrize("kind", BLIND)
@settings(max_examples=40, deadline=None)
@given(drawn=rounds(), seed=st.integers(0, 1000))
def test_the_order_of_clients_does_not_matter(
    kind: type[RobustStrategy], drawn: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    updates, examples = drawn
    order = np.random.default_rng(seed).permutation(len(updates))
    size = np.abs(updates).max()
    found = combined(kind(), updates[order], examples[order])
    np.testing.assert_allclose(found, combined(kind(), updates, examples), rtol=1e-6, atol=1e-6 * size)


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=25, deadline=None)
@given(drawn=rounds(), clients=st.integers(1, 9))
def test_equal_clients_give_their_mean(
    kind: type[RobustStrategy], drawn: tuple[np.ndarray, np.ndarray], clients: int
) -> None:
    update = drawn[0][0]
    examples = np.arange(1.0, clients + 1)
    np.testing.assert_allclose(combined(kind(), np.tile(update, (clients, 1)), examples), update, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(drawn=rounds(least=3), size=st.sampled_from([1e3, 1e6, 1e9]), seed=st.integers(0, 1000))
def test_less_than_half_of_the_weight_cannot_leave_the_honest_range(
    drawn: tuple[np.ndarray, np.ndarray], size: float, seed: int
) -> None:
    """With equal weights and m < n / 2 attackers, each median lies between two honest values."""
    updates, _ = drawn
    rng = np.random.default_rng(seed)
    attackers = rng.integers(0, (len(updates) - 1) // 2 + 1)
    updates[:attackers] = size * rng.normal(size=(attackers, 4))
    honest, examples = updates[attackers:], np.full(len(updates), 10.0)
    found = combined(WeightedMedian(), updates, examples)
    slack = 1e-6 * np.abs(honest).max()
    assert (found >= honest.min(axis=0) - slack).all()
    assert (found <= honest.max(axis=0) + slack).all()


@settings(max_examples=40, deadline=None)
@given(drawn=rounds(least=4), size=st.sampled_from([1e4, 1e7]), seed=st.integers(0, 1000))
def test_the_geometric_median_stays_near_the_honest_clients(
    drawn: tuple[np.ndarray, np.ndarray], size: float, seed: int
) -> None:
    """Lopuhaä, Rousseeuw (1991): it is at most 2 (1 - ε) / (1 - 2ε) times the honest radius from the middle.

    ε is the attackers' share of the weight. Proof: with honest updates within radius r of c, the subgradient
    at a point at distance d > r pulls back with (1 - ε) √(1 - r² / d²) at least and away with ε at most; so
    d ≤ r (1 - ε) / √(1 - 2ε), which is below the bound tested here.
    """
    updates, _ = drawn
    rng = np.random.default_rng(seed)
    attackers = int(rng.integers(0, (len(updates) - 1) // 3 + 1))
    center = updates[attackers:].mean(axis=0)
    radius = np.linalg.norm(updates[attackers:] - center, axis=1).max()
    updates[:attackers] = center + size * radius * rng.normal(size=(attackers, 4))
    share = attackers / len(updates)
    found = combined(GeometricMedian(iterations=500), updates, np.full(len(updates), 10.0))
    distance = np.linalg.norm(found - center)
    assert distance <= radius * 2 * (1 - share) / (1 - 2 * share) * (1 + 1e-3)


@settings(max_examples=40, deadline=None)
@given(drawn=rounds(least=2), size=st.sampled_from([1.0, 1e9]))
def test_one_client_moves_a_clipped_mean_by_its_share_of_the_norm_at_most(
    drawn: tuple[np.ndarray, np.ndarray], size: float
) -> None:
    updates, _ = drawn
    examples = np.full(len(updates), 10.0)
    before = combined(NormClippedMean(norm=0.5), updates, examples)
    updates[0] *= np.float32(size)
    moved = np.linalg.norm(combined(NormClippedMean(norm=0.5), updates, examples) - before)
    assert moved <= 2 * 0.5 / len(updates) * (1 + 1e-5)


@settings(max_examples=40, deadline=None)
@given(drawn=rounds(), size=st.sampled_from([1.0, 1e9]), seed=st.integers(0, 1000))
def test_trust_moves_no_further_than_the_trusted_client(
    drawn: tuple[np.ndarray, np.ndarray], size: float, seed: int
) -> None:
    """A mean of vectors of one norm has that norm at most, and never points away from the trusted one."""
    updates, examples = drawn
    updates[1:] *= np.float32(size)
    found = combined(FLTrust(trusted=0), updates, examples)
    assert np.linalg.norm(found) <= np.linalg.norm(updates[0]) * (1 + 1e-5)
    assert found @ updates[0].astype(float) >= 0
