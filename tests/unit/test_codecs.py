"""Codecs of updates against numbers worked out by hand, and how much they save."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoal.common.arrays import count_bytes
from shoal.common.config.sections import UpdateConfig
from shoal.common.origin import Origin
from shoal.common.update.codecs import Float16, Int8, TopK, codec_of
from shoal.common.weights import all_finite, weights_to_record


def draws() -> np.random.Generator:
    return Origin(1, 1, 0).rng("compression")


def test_float16_rounds_by_at_most_half_a_unit_in_the_last_place() -> None:
    """11 significant bits: a relative error of at most 2^-11."""
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    values = values[np.abs(values) > 1e-4]
    (found,) = Float16().decode(Float16().encode([values], draws), [values])
    assert (np.abs(found - values) <= 2.0**-11 * np.abs(values)).all()
    assert (found != values).any()


def test_an_update_too_large_for_float16_is_not_finite_once_encoded() -> None:
    """Its largest number is 65,504: the client sees it, and refuses to send."""
    assert not all_finite(Float16().encode([np.array([70_000.0], np.float32)], draws))
    assert all_finite(Float16().encode([np.array([65_000.0], np.float32)], draws))


def test_int8_has_255_levels_and_no_bias() -> None:
    """The largest number 127 makes a level 1: 0.3 becomes 1 in three of ten draws, 0 in the others.

    Over n = 20,000 draws the share has deviation √(0.3·0.7/n): five of them.
    """
    n = 20_000
    values = np.full(n + 1, 0.3, np.float32)
    values[0] = -127
    (found,) = Int8().decode(Int8().encode([values], draws), [values])
    assert found[0] == -127
    assert set(found[1:].tolist()) == {0.0, 1.0}
    assert abs(found[1:].mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)


def test_int8_has_no_bias_anywhere_between_its_levels() -> None:
    """Of 51 numbers from -1 to 1, step 1/127; rounding of one draw deviates by at most half a step.

    So the mean of n = 4,000 draws deviates by at most 1/(254 √n): five of them, with 51 numbers once in
    30,000 tries.
    """
    n, values = 4000, np.linspace(-1, 1, 51).astype(np.float32)
    stack = np.tile(values, (n, 1))
    (found,) = Int8().decode(Int8().encode([stack], draws), [stack])
    assert np.abs(found.astype(np.float64).mean(axis=0) - values).max() < 5 / (254 * np.sqrt(n))


def test_each_array_has_a_step_of_its_own() -> None:
    large, small = np.array([127.0, 0.0], np.float32), np.array([0.127, 0.0], np.float32)
    *levels, steps = Int8().encode([large, small], draws)
    np.testing.assert_allclose(steps, [1.0, 0.001], rtol=1e-6)
    assert [level[0] for level in levels] == [127, 127]


def cnn_of_1_66_million() -> list[NDArray[np.float32]]:
    """Shapes of the CNN of McMahan et al. (2017) for 28 x 28 images: 1,663,370 weights."""
    shapes = [(5, 5, 1, 32), (32,), (5, 5, 32, 64), (64,), (3136, 512), (512,), (512, 10), (10,)]
    assert sum(int(np.prod(shape)) for shape in shapes) == 1_663_370
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape, scale=0.01).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("name", "share"), [("none", 1.0), ("float16", 0.51), ("int8", 0.26), ("topk", 0.021)]
)
def test_an_encoded_update_is_as_small_as_promised(name: str, share: float) -> None:
    """In a record as it travels, with its keys and numpy's headers; 1, 1/2 and 1/4 without them.

    topk sends 8 bytes for one in a hundred values of 4 bytes: 0.02.
    """
    update = cnn_of_1_66_million()
    size = count_bytes(weights_to_record(codec_of(UpdateConfig(compress=name)).encode(update, draws)))
    assert size <= share * count_bytes(weights_to_record(update))


def test_topk_sends_the_largest_magnitudes_of_all_arrays_together() -> None:
    """Of 5 values, ⌈0.5 · 5⌉ = 3: 9, -7, and of the two 2s the first."""
    update = [np.array([[1.0, -7.0], [2.0, 9.0]], np.float32), np.array([2.0], np.float32)]
    positions, values = TopK(0.5).encode(update, draws)
    assert (positions.tolist(), values.tolist()) == ([1, 2, 3], [-7.0, 2.0, 9.0])
    matrix, vector = TopK(0.5).decode([positions, values], update)
    assert (matrix.tolist(), vector.tolist()) == ([[0.0, -7.0], [2.0, 9.0]], [0.0])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.001, 1.0))
def test_topk_is_a_contraction(seed: int, share: float) -> None:
    """‖u − C(u)‖² ≤ (1 − k/n) ‖u‖²: the k largest of n squares sum to at least k/n of all."""
    update = np.random.default_rng(seed).normal(size=37).astype(np.float32)
    (decoded,) = TopK(share).decode(TopK(share).encode([update], draws), [update])
    k = int(np.ceil(share * 37))
    left = float(np.sum((update - decoded).astype(np.float64) ** 2))
    assert left <= (1 - k / 37) * float(np.sum(update.astype(np.float64) ** 2)) + 1e-6


def test_topk_refuses_positions_outside_the_model_or_twice() -> None:
    like = [np.zeros(4, np.float32)]
    values = np.ones(2, np.float32)
    for positions, good in (([0, 3], True), ([0, 4], False), ([1, 1], False), ([3, 0], False)):
        assert TopK(0.5).fits([np.array(positions, np.uint32), values], like) is good
