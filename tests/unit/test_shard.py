"""The division of a client's rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.clients.shard import split_indices
from shoal.common.config import DataConfig
from shoal.common.errors import EmptyClientError

CONFIG = DataConfig(source="thyroid", test_fraction=0.2, validation_fraction=0.1)


@given(
    labels=st.lists(st.integers(0, 3), min_size=10, max_size=200),
    seed=st.integers(0, 1000),
    client=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_splits_are_disjoint_complete_stratified_and_repeatable(
    labels: list[int], seed: int, client: int
) -> None:
    array = np.array(labels)
    splits = split_indices(array, CONFIG, seed, client)
    together = np.concatenate(list(splits.values()))
    assert sorted(together) == list(range(len(labels)))
    assert abs(len(splits["test"]) - 0.2 * len(labels)) <= 1
    for label in set(labels):
        held = (array[splits["test"]] == label).sum()
        assert abs(held - 0.2 * (array == label).sum()) <= 1
    again = split_indices(array, CONFIG, seed, client)
    assert all(np.array_equal(splits[name], again[name]) for name in splits)


def test_a_regression_target_is_held_out_over_its_whole_range() -> None:
    """Sorted targets 0..99, every fifth held out: any 10 neighbours hold out exactly 2."""
    splits = split_indices(np.random.default_rng(0).permutation(100).astype(np.float32), CONFIG, 1, 0)
    targets = np.random.default_rng(0).permutation(100)
    held = np.zeros(100, bool)
    held[targets[splits["test"]]] = True
    assert {int(held[i : i + 10].sum()) for i in range(0, 100, 10)} == {2}


def test_another_client_or_seed_divides_otherwise() -> None:
    labels = np.zeros(100, np.int32)
    first = split_indices(labels, CONFIG, 1, 0)["test"]
    assert not np.array_equal(first, split_indices(labels, CONFIG, 1, 1)["test"])
    assert not np.array_equal(first, split_indices(labels, CONFIG, 2, 0)["test"])


def test_a_client_with_too_few_rows_is_refused() -> None:
    with pytest.raises(EmptyClientError, match="client 3 holds 1 rows"):
        split_indices(np.zeros(1), CONFIG, seed=0, client=3)


def test_no_validation_rows_where_none_are_asked_for() -> None:
    config = CONFIG.model_copy(update={"validation_fraction": 0.0})
    assert len(split_indices(np.arange(50), config, 1, 0)["validation"]) == 0
