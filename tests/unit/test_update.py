"""The steps between local training and encoding against numbers worked out by hand."""

from __future__ import annotations

import numpy as np

from shoal.clients.update.clip import Clip
from shoal.clients.update.noise import GaussianNoise
from shoal.clients.update.pipeline import Pipeline, finite
from shoal.clients.update.step import Step, Updates
from shoal.common.origin import Origin
from shoal.common.update.codecs import Float16, FullPrecision, Int8

ONE = [Origin(1, 1, 0)]


def applied(step: Step, updates: Updates, origins: list[Origin] = ONE) -> Updates:
    return step.apply(updates, origins, {})[0]


def array(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_an_update_of_norm_5_is_scaled_to_norm_1() -> None:
    """(3, 0) and (0, 4) are one update of norm √(9 + 16) = 5: all of it is divided by 5."""
    found = applied(Clip(1.0), [array(3, 0), array(0, 4)])
    np.testing.assert_allclose(found[0], [[0.6, 0]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [[0, 0.8]], rtol=1e-6)


def test_an_update_within_the_norm_keeps_its_bits() -> None:
    update = array(0.1, -0.7)
    np.testing.assert_array_equal(applied(Clip(5.0), [update.copy()])[0], update)


def test_a_norm_whose_square_overflows_is_clipped_all_the_same() -> None:
    found = applied(Clip(1.0), [array(3e30, 4e30)])  # the square of 1e30 is beyond float32
    np.testing.assert_allclose(found[0], [[0.6, 0.8]], rtol=1e-6)


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    """Over n = 200,000 draws the mean has deviation s/√n, the sample deviation s/√(2n): five of each."""
    n, stddev = 200_000, 0.3
    drawn = applied(GaussianNoise(stddev), [np.zeros((1, n), np.float32)])[0][0].astype(np.float64)
    assert abs(drawn.mean()) < 5 * stddev / np.sqrt(n)
    assert abs(drawn.std() - stddev) < 5 * stddev / np.sqrt(2 * n)
    fourth = ((drawn / stddev) ** 4).mean()  # 3 for a Gaussian, with deviation √(96/n)
    assert abs(fourth - 3) < 5 * np.sqrt(96 / n)


def test_noise_differs_between_clients_and_rounds() -> None:
    origins = [Origin(1, 1, 0), Origin(1, 1, 1), Origin(1, 2, 0)]
    drawn = applied(GaussianNoise(1.0), [np.zeros((3, 100), np.float32)], origins)[0]
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.5  # 5 deviations of 1/√100


def test_steps_come_in_their_order_and_then_the_update_is_encoded() -> None:
    """The update (3, 4) of norm 5 becomes (0.6, 0.8), then half of it, which float16 rounds."""
    pipeline = Pipeline([Clip(1.0), Clip(0.5)], Float16())
    left, remembered = pipeline.apply([array(3, 4)], ONE, {})
    np.testing.assert_allclose(left[0], [[0.3, 0.4]], rtol=1e-6)
    assert remembered == {}
    (sent,) = pipeline.encode([left[0][0]], ONE[0])
    np.testing.assert_array_equal(sent, np.array([0.3, 0.4], np.float16))


def test_noise_comes_after_clipping() -> None:
    """Clipped after it, no update could be longer than 1; noise of deviation 1 on 1,000 numbers is 30."""
    pipeline = Pipeline([Clip(1.0), GaussianNoise(1.0)], FullPrecision())
    left, _ = pipeline.apply([np.ones((1, 1000), np.float32)], ONE, {})
    assert np.linalg.norm(left[0]) > 20


def test_without_steps_the_very_arrays_pass() -> None:
    updates = [array(1, 2)]
    pipeline = Pipeline([], FullPrecision())
    left, _ = pipeline.apply(updates, ONE, {})
    assert left is updates
    assert pipeline.encode(updates, ONE[0])[0] is updates[0]


def test_a_client_encodes_with_draws_of_its_own() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    pipeline = Pipeline([], Int8())
    one, same, other = (
        pipeline.encode([values], origin)[0] for origin in (Origin(1, 1, 0), Origin(1, 1, 0), Origin(1, 1, 1))
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_finite_tells_each_client_apart() -> None:
    stack = [np.array([[1.0], [np.nan], [2.0]]), np.array([[1.0], [1.0], [np.inf]])]
    assert finite(stack).tolist() == [True, False, False]
