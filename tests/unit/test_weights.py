"""A model's weights in Flower records."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord

from shoal.common.weights import (
    is_finite,
    record_to_weights,
    same_shapes,
    weights_to_record,
    with_types_of,
)

WEIGHTS = weights_to_record([np.zeros((2, 3), np.float32), np.zeros(3, np.float32)])


def test_weights_round_trip_bitwise() -> None:
    weights = [np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32), np.array(3.0)]
    back = record_to_weights(weights_to_record(weights))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(weights, back, strict=True))


def test_finite_looks_at_every_array() -> None:
    assert is_finite(WEIGHTS)
    for bad in (np.nan, np.inf):
        assert not is_finite(ArrayRecord([np.zeros(2), np.array([0.0, bad])]))
    assert is_finite(ArrayRecord([np.array([1, 2])]))  # whole numbers always are
    huge = np.full(4, 3e38, np.float32)  # their sum is beyond float32, each of them is not
    assert is_finite(ArrayRecord([huge]))


def test_shapes_and_types_are_compared() -> None:
    assert same_shapes(WEIGHTS, weights_to_record([np.ones((2, 3), np.float32), np.ones(3, np.float32)]))
    for other in (
        [np.zeros((3, 2), np.float32), np.zeros(3, np.float32)],
        [np.zeros((2, 3), np.float64), np.zeros(3, np.float32)],
        [np.zeros((2, 3), np.float32)],
    ):
        assert not same_shapes(weights_to_record(other), WEIGHTS)


def test_what_a_strategy_computed_in_float64_gets_the_model_s_types_back() -> None:
    found = with_types_of(weights_to_record([np.full((2, 3), 0.1), np.ones(3)]), WEIGHTS)
    assert same_shapes(found, WEIGHTS)
    np.testing.assert_array_equal(record_to_weights(found)[0], np.full((2, 3), 0.1, np.float32))
