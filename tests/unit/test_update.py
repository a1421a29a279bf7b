"""The steps of the update pipeline against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.clients.update.clip import Clip
from shoal.clients.update.compress import Float16, Int8
from shoal.clients.update.noise import GaussianNoise
from shoal.clients.update.pipeline import Pipeline, make_pipeline
from shoal.common.config import UpdateConfig
from shoal.common.origin import Origin

ONE = [Origin(1, 1, 0)]


def array(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_an_update_of_norm_5_is_scaled_to_norm_1() -> None:
    """(3, 0) and (0, 4) are one update of norm √(9 + 16) = 5: all of it is divided by 5."""
    found = Clip(1.0).apply([array(3, 0), array(0, 4)], ONE)
    np.testing.assert_allclose(found[0], [[0.6, 0]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [[0, 0.8]], rtol=1e-6)


def test_an_update_within_the_norm_keeps_its_bits() -> None:
    update = array(0.1, -0.7)
    np.testing.assert_array_equal(Clip(5.0).apply([update.copy()], ONE)[0], update)


def test_a_norm_whose_square_overflows_is_clipped_all_the_same() -> None:
    found = Clip(1.0).apply([array(3e30, 4e30)], ONE)  # the square of 1e30 is beyond float32
    np.testing.assert_allclose(found[0], [[0.6, 0.8]], rtol=1e-6)


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    """Over n = 200,000 draws the mean has deviation s/√n, the sample deviation s/√(2n): five of each."""
    n, stddev = 200_000, 0.3
    drawn = GaussianNoise(stddev).apply([np.zeros((1, n), np.float32)], ONE)[0][0].astype(np.float64)
    assert abs(drawn.mean()) < 5 * stddev / np.sqrt(n)
    assert abs(drawn.std() - stddev) < 5 * stddev / np.sqrt(2 * n)
    fourth = ((drawn / stddev) ** 4).mean()  # 3 for a Gaussian, with deviation √(96/n)
    assert abs(fourth - 3) < 5 * np.sqrt(96 / n)


def test_noise_differs_between_clients_and_rounds() -> None:
    origins = [Origin(1, 1, 0), Origin(1, 1, 1), Origin(1, 2, 0)]
    drawn = GaussianNoise(1.0).apply([np.zeros((3, 100), np.float32)], origins)[0]
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.5  # 5 deviations of 1/√100


def test_float16_rounds_by_at_most_half_a_unit_in_the_last_place() -> None:
    """11 significant bits: a relative error of at most 2^-11."""
    values = np.random.default_rng(0).normal(size=(1, 5000)).astype(np.float32)
    values = values[np.abs(values) > 1e-4].reshape(1, -1)
    found = Float16().apply([values.copy()], ONE)[0]
    assert (np.abs(found - values) <= 2.0**-11 * np.abs(values)).all()
    assert (found != values).any()


def test_int8_has_255_levels_and_no_bias() -> None:
    """The largest number 127 makes a level 1: 0.3 becomes 1 in three of ten draws, 0 in the others.

    Over n = 20,000 draws the share has deviation √(0.3·0.7/n): five of them.
    """
    n = 20_000
    values = np.full((1, n + 1), 0.3, np.float32)
    values[0, 0] = -127
    found = Int8().apply([values], ONE)[0][0]
    assert found[0] == -127
    assert set(found[1:].tolist()) == {0.0, 1.0}
    assert abs(found[1:].mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)


def test_steps_come_in_their_order_and_start_from_the_server_s_weights() -> None:
    """1 + clip((4, 3) − ... ): the update (3, 4) of norm 5 becomes (0.6, 0.8), which float16 rounds."""
    pipeline = make_pipeline(UpdateConfig(clip_norm=1.0, compress="float16"))
    start = [np.array([1, -1], np.float32)]
    left, leaves = pipeline.apply(start, [np.array([[4, 3]], np.float32)], ONE)
    rounded = np.array([0.6, 0.8], np.float16).astype(np.float32)
    np.testing.assert_allclose(left[0], start[0] + rounded[None], rtol=1e-7)
    assert leaves.all()


def test_an_update_too_large_for_float16_does_not_leave() -> None:
    pipeline = make_pipeline(UpdateConfig(compress="float16"))
    stack = np.array([[70_000.0], [65_000.0]], np.float32)
    _, leaves = pipeline.apply([np.zeros(1, np.float32)], [stack], [*ONE, Origin(1, 1, 1)])
    assert leaves.tolist() == [False, True]


def test_without_steps_the_very_arrays_pass() -> None:
    trained = [array(1, 2)]
    left, _ = Pipeline([]).apply([np.zeros(2, np.float32)], trained, ONE)
    assert left is trained


def test_whole_numbers_among_the_weights_are_left_alone() -> None:
    pipeline = make_pipeline(UpdateConfig(noise_stddev=1.0))
    trained = [array(1, 2), np.array([[7]], np.int64)]
    left, _ = pipeline.apply([np.zeros(2, np.float32), np.zeros(1, np.int64)], trained, ONE)
    assert left[1].tolist() == [[7]]
    assert (left[0] != trained[0]).all()


@pytest.mark.parametrize(("compress", "size"), [("none", None), ("float16", 2 * 10), ("int8", 10 + 4 * 2)])
def test_the_size_on_the_way(compress: str, size: int | None) -> None:
    pipeline = make_pipeline(UpdateConfig.model_validate({"compress": compress, "clip_norm": 1.0}))
    assert pipeline.wire_bytes([np.zeros((4, 2)), np.zeros(2)]) == size
