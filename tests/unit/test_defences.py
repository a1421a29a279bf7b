"""The robust strategies on numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.common.sites import FIRST_NODE_ID
from shoal.server.strategies.fltrust import FLTrust
from shoal.server.strategies.geometric_median import GeometricMedian
from shoal.server.strategies.norm_clipped import NormClippedMean
from shoal.server.strategies.robust import RobustStrategy, blocks, capped, mean, norms
from shoal.server.strategies.weighted_median import WeightedMedian, weighted_median


def combined(strategy: RobustStrategy, updates: list[list[float]], examples: list[float]) -> list[float]:
    nodes = range(FIRST_NODE_ID, FIRST_NODE_ID + len(updates))
    found = strategy.combine(np.array(updates, np.float32), np.array(examples, float), list(nodes))
    assert found is not None
    return [float(v) for v in found]


def test_weights_are_by_examples_up_to_a_multiple_of_the_median() -> None:
    """Of 10, 20, 30 and a claimed 10⁹ the median is 25; with cap 2 the last counts as 50 of 110."""
    found = capped(np.array([10, 20, 30, 1e9]), 2.0)
    assert found == pytest.approx([10 / 110, 20 / 110, 30 / 110, 50 / 110])
    assert capped(np.zeros(4), 2.0).tolist() == [0.25] * 4


def test_blocks_cover_all_columns_and_norms_survive_what_float32_cannot_square() -> None:
    updates = np.ones((3, 5_000_000), np.float32)
    parts = list(blocks(updates))
    assert len(parts) > 1
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
    assert norms(updates) == pytest.approx([5_000_000**0.5] * 3)
    huge = np.array([[3e30, 4e30]], np.float32)
    assert norms(huge) == pytest.approx([5e30], rel=1e-6)
    assert norms(huge, np.array([3e30, 0.0])) == pytest.approx([4e30], rel=1e-6)
    assert mean(np.array([[1, 2], [3, 4]], np.float32), np.array([0.25, 0.75])).tolist() == [2.5, 3.5]


def test_norm_clipped_mean_by_hand() -> None:
    """(3, 4) has norm 5, (0, 10) norm 10, (1, 0) norm 1; all have as many examples.

    At norm 2: (1.2, 1.6), (0, 2), (1, 0): their mean is (2.2, 3.6) / 3.
    At the median norm, 5: (3, 4), (0, 5), (1, 0): (4, 9) / 3.
    """
    updates, examples = [[3.0, 4.0], [0.0, 10.0], [1.0, 0.0]], [7.0] * 3
    assert combined(NormClippedMean(norm=2.0), updates, examples) == pytest.approx([2.2 / 3, 1.2])
    assert combined(NormClippedMean(), updates, examples) == pytest.approx([4 / 3, 3.0])
    # (1·(3, 4) + 1·(0, 5) + 2·(1, 0)) / 4 by examples
    assert combined(NormClippedMean(), updates, [5.0, 5.0, 10.0]) == pytest.approx([5 / 4, 9 / 4])
    assert combined(NormClippedMean(), [[0.0, 0.0]] * 3, examples) == [0.0, 0.0]


def test_geometric_median_by_hand() -> None:
    """The geometric median of the corners of a square is its centre, however far out one stretches a corner.

    For four points of which one lies within no triangle of the others it is where the diagonals cross:
    (0, 0), (2, 0), (0, 2), (a, a) cross on the line x = y and on x + y = 2, at (1, 1) for any a > 1.
    The mean is ((2 + a) / 4, (2 + a) / 4).
    """
    for a in (2.0, 50.0, 1e5):
        found = combined(
            GeometricMedian(iterations=400), [[0, 0], [2, 0], [0, 2], [a, a]], [1.0, 1.0, 1.0, 1.0]
        )
        assert found == pytest.approx([1.0, 1.0], abs=2e-3)
    # One iteration from the mean 1 of 0, 0, 3 by examples: distances 1, 1, 2, pulls 1, 1, ½: 3·½ / 2.5.
    assert combined(GeometricMedian(iterations=1), [[0], [0], [3]], [1.0] * 3) == pytest.approx([0.6])


def test_weighted_median_by_hand() -> None:
    """Of 1, 2, 3 with weights 1, 1, 3 it is 3; with equal weights 2; of 1 and 2 in equal parts 1.5."""
    strategy = WeightedMedian()
    assert combined(strategy, [[1], [2], [3]], [1.0, 1.0, 3.0]) == [3.0]
    assert combined(strategy, [[1], [2], [3]], [5.0, 5.0, 5.0]) == [2.0]
    assert combined(strategy, [[1], [2]], [4.0, 4.0]) == [1.5]
    # the half falls on the border between 2 and 9: 1 + 2 of 6 lie up to 2
    assert combined(strategy, [[9], [2], [1]], [3.0, 2.0, 1.0]) == [5.5]


def test_with_equal_weights_it_is_the_median_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for clients in range(1, 9):
        values = rng.normal(size=(clients, 50)).astype(np.float32)
        found = weighted_median(values, np.full(clients, 1 / clients))
        np.testing.assert_allclose(found, np.median(values.astype(float), axis=0), rtol=1e-6)


def test_fltrust_by_hand() -> None:
    """The trusted update is (2, 0), of norm 2.

    (3, 3) has the cosine 1/√2 and is scaled to (√2, √2); (-5, 0) has -1, so nothing; (0, 9) has 0.
    ((2, 0) + (√2, √2) / √2) / (1 + 1/√2) = (3, 1) / (1 + 1/√2).
    """
    share = 1 + 1 / np.sqrt(2)
    updates = [[-5.0, 0.0], [2.0, 0.0], [3.0, 3.0], [0.0, 9.0]]
    assert combined(FLTrust(trusted=1), updates, [1.0] * 4) == pytest.approx([3 / share, 1 / share])
    # a client that sends nothing has no direction
    assert combined(FLTrust(), [[2.0, 0.0], [0.0, 0.0]], [1.0] * 2) == [2.0, 0.0]
    assert combined(FLTrust(), [[0.0, 0.0], [9.0, 9.0]], [1.0] * 2) == [0.0, 0.0]


def test_without_the_trusted_client_the_model_stays() -> None:
    assert FLTrust(trusted=5).combine(np.ones((2, 3), np.float32), np.ones(2), [2, 3]) is None
