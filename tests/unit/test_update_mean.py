"""The running mean of updates, and the groups in which a round is summed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoal.common.update.mean import UpdateMean, group_size


def update(seed: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 2)).astype(np.float32), np.asarray(rng.normal(), np.float32)]


def mean_of(updates: list[tuple[int, float]]) -> UpdateMean:
    found = UpdateMean()
    for seed, weight in updates:
        found.add(update(seed), weight)
    return found


def test_a_weighted_mean_by_hand() -> None:
    """(1·(2, 4) + 3·(6, 0)) / 4 = (5, 1)."""
    found = UpdateMean()
    found.add([np.array([2, 4], np.float32)], 1.0)
    found.add([np.array([6, 0], np.float32)], 3.0)
    assert found.mean()[0].tolist() == [5, 1]
    assert found.sum()[0].tolist() == [20, 4]
    assert (found.weight, found.count) == (4.0, 2)
    assert found.mean()[0].dtype == np.float32


def test_the_mean_of_one_is_that_one_to_the_bit() -> None:
    """0.1 · 3 / 3 is not 0.1 in every float; with a weight of 0 it would not be anything."""
    for weight in (3.0, 0.0):
        found = mean_of([(1, weight)])
        for a, b in zip(found.mean(), update(1), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_weights_of_nothing_have_no_mean() -> None:
    with pytest.raises(ValueError, match="sum to zero"):
        mean_of([(1, 0.0), (2, 0.0)]).mean()
    with pytest.raises(ValueError, match="sum to zero"):
        UpdateMean().mean()


@settings(max_examples=50, deadline=None)
@given(data=st.data(), clients=st.integers(2, 12))
def test_the_order_matters_no_more_than_float64_rounds(data: st.DataObject, clients: int) -> None:
    """Each of n additions rounds by at most 2^-53 of the sum of sizes; then all is rounded to float32."""
    weights = data.draw(st.lists(st.floats(0.1, 1e4), min_size=clients, max_size=clients))
    pairs = list(enumerate(weights))
    other = data.draw(st.permutations(pairs))
    sizes = [sum(w * np.abs(u[k]) for (s, w) in pairs for u in [update(s)]) for k in range(2)]
    for a, b, size in zip(mean_of(pairs).sum(), mean_of(other).sum(), sizes, strict=True):
        assert (np.abs(a - b) <= 2 * clients * 2.0**-53 * size).all()


def test_arguments_are_not_changed() -> None:
    first, second = update(1), update(2)
    found = UpdateMean()
    found.add(first, 2.0)
    found.add(second, 2.0)
    found.mean()
    for a, b in zip([*first, *second], [*update(1), *update(2)], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("clients", "stacked", "short", "size"),
    [
        (1, False, False, 1),
        (32, False, False, 1),
        (33, False, False, 2),
        (1000, False, False, 32),  # 1000 / 32 = 31.25
        (1000, False, True, 125),  # 8 groups of a short pass
        (50, True, False, 50),  # one stack
        (100, True, False, 50),  # two
        (1000, True, False, 125),  # no more than 8
    ],
)
def test_groups_follow_from_the_number_of_clients_alone(
    clients: int, stacked: bool, short: bool, size: int
) -> None:
    assert group_size(clients, stacked=stacked, short=short) == size


@given(clients=st.integers(1, 10_000), stacked=st.booleans(), short=st.booleans())
def test_groups_hold_every_client_and_are_few(clients: int, stacked: bool, short: bool) -> None:
    size = group_size(clients, stacked=stacked, short=short)
    assert 1 <= size <= clients
    assert -(-clients // size) <= 32
