"""Laws of the parts of secure aggregation."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shoal.common.secure import field, layout
from shoal.common.secure.fixed_point import ROUNDING, FixedPoint, from_ring, to_ring
from shoal.common.secure.layout import Summand

secrets_ = st.binary(min_size=32, max_size=32)


@given(secret=secrets_, data=st.data(), holders=st.integers(1, 12))
def test_any_threshold_of_shares_gives_the_secret_back(
    secret: bytes, data: st.DataObject, holders: int
) -> None:
    threshold = data.draw(st.integers(1, holders))
    points = data.draw(st.lists(st.integers(1, 10_000), min_size=holders, max_size=holders, unique=True))
    shares = dict(zip(points, field.split(field.secret_to_int(secret), threshold, points), strict=True))
    chosen = data.draw(st.permutations(points))[:threshold]
    assert field.int_to_secret(field.combine({x: shares[x] for x in chosen})) == secret


@given(
    first=st.integers(0, field.PRIME - 1), second=st.integers(0, field.PRIME - 1), threshold=st.integers(1, 5)
)
def test_shares_of_a_sum_are_sums_of_shares(first: int, second: int, threshold: int) -> None:
    points = [1, 2, 3, 4, 5]
    a, b = field.split(first, threshold, points), field.split(second, threshold, points)
    both = {x: (y + z) % field.PRIME for x, y, z in zip(points, a, b, strict=True)}
    assert field.combine(both) == (first + second) % field.PRIME


ranges = st.sampled_from([1e-3, 0.5, 1.0, 3.7, 1e4])


@given(clients=st.integers(3, 10_000), range_=ranges, stddev=st.floats(0, 100))
def test_no_sum_overflows(clients: int, range_: float, stddev: float) -> None:
    """All clients at the end of the range, and ten standard deviations of noise, still fit."""
    fixed = FixedPoint.for_sum(clients, range_, stddev * range_)
    largest = fixed.encode(np.array([np.finfo(np.float64).max]))[0]
    assert largest == fixed.levels
    assert clients * largest + 10 * stddev * fixed.levels < 2**31
    twice = 2 * fixed.levels
    assert clients * twice + 10 * stddev * twice >= 2**31 - 1  # and no power of two more


@given(
    values=st.lists(st.floats(-2, 2), min_size=3, max_size=30),
    range_=ranges,
    weight=st.floats(0, 1),
    clients=st.integers(3, 1000),
)
def test_each_number_is_as_near_as_stated(
    values: list[float], range_: float, weight: float, clients: int
) -> None:
    fixed = FixedPoint.for_sum(clients, range_)
    x = np.array(values) * range_
    decoded = fixed.decode(fixed.encode(x, weight))
    expected = weight * np.clip(x, -range_, range_)
    assert np.abs(decoded - expected).max() <= fixed.error == ROUNDING * range_ / fixed.levels


@given(data=st.data(), clients=st.integers(3, 20))
def test_the_mean_of_updates_is_as_near_as_stated(data: st.DataObject, clients: int) -> None:
    """The bound of docs/secure-aggregation.md: 1.5 · n · range / (S · Σ weights), for any weights."""
    fixed = FixedPoint.for_sum(clients, 1.0)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = rng.uniform(0.01, 1, clients)
    updates = rng.uniform(-1, 1, (clients, 50))
    total = np.zeros(50 + layout.TRAILING, np.uint32)
    for w, u in zip(weights, updates, strict=True):
        total += to_ring(layout.encode(Summand([u], float(w), 2.5, -0.5), fixed))
    found = layout.decode(from_ring(total), [np.zeros(50, np.float32)], fixed)
    mean = weights @ updates / weights.sum()
    bound = 3 * ROUNDING * clients * fixed.step / found.weight
    assert np.abs(found.update[0] / found.weight - mean).max() <= bound
    assert abs(found.loss / found.weight - 2.5) <= bound * layout.LOSS_BOUND
    assert found.within == -clients / 2
