"""Few rows stay hidden in statistics of numeric columns, whatever kind of number they are."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.clients.preprocessing.statistics import disclosable_values, local_statistics
from shoal.common.config import PreprocessingConfig
from shoal.common.schema import Column, Schema, Shard

LEAST = 5


@pytest.mark.parametrize("ones", range(1, LEAST))
@pytest.mark.parametrize("other", [1.0, -7.5])
def test_a_column_of_0_and_1_does_not_tell_of_a_few_rows(ones: int, other: float) -> None:
    """The mean of 100 rows was ones / 100: it told that there is a row, and how many."""
    values = np.zeros(100)
    values[:ones] = other
    schema = Schema((Column("rare", "numeric"),), "binary", ("no", "yes"), "y")
    shard = Shard({"rare": values}, np.arange(100) % 2)
    found = local_statistics(shard, schema, PreprocessingConfig(min_count=LEAST)).numeric["rare"]
    none = local_statistics(
        Shard({"rare": np.zeros(100)}, shard.labels), schema, PreprocessingConfig(min_count=LEAST)
    ).numeric["rare"]
    assert found == none


def test_several_codes_are_exceptions_together_and_enough_rows_are_told() -> None:
    counts = np.array([0.0] * 90 + [1.0] * 2 + [2.0] * 2)
    assert set(disclosable_values(counts, LEAST)) == {0.0}  # four rows differ from the most common value
    enough = np.array([0.0] * 90 + [1.0] * LEAST)
    np.testing.assert_array_equal(disclosable_values(enough, LEAST), enough)
    both = np.array([1.0] * 3 + [0.0] * 97)  # the ones may be the rule elsewhere
    assert set(disclosable_values(1 - both, LEAST)) == {1.0}
    continuous = np.random.default_rng(0).normal(size=50)
    np.testing.assert_array_equal(disclosable_values(continuous, LEAST), continuous)
