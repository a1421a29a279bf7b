"""Sums of columns of every kind give the preprocessing of a fit in the clear."""

from __future__ import annotations

import numpy as np
import pytest
from summing import ShardSum, scenario_with, total_of

from shoal.clients.preprocessing.statistics import local_statistics
from shoal.common.errors import DataError, DisclosureError
from shoal.common.privacy.noise import randomness
from shoal.common.schema import Column, Schema, Shard
from shoal.server.preprocessing.fit import fit, fit_total
from shoal.server.preprocessing.summed_statistics import SummedStatistics
from shoal.simulations.results.text import NONE, count

SECURE = scenario_with(preprocessing={"min_count": 5, "min_sites": 2}, secure={"aggregation": True})
IMAGE = Schema((Column("i", "image", (2, 2, 1)),), "multiclass", ("a", "b", "c"), "y")
SEQUENCE = Schema((Column("s", "sequence", (6, 2)),), "regression", (), "y")
NUMBERS = Schema((Column("x", "numeric"), Column("z", "numeric")), "binary", ("no", "yes"), "y")


def images(site: int, dtype: type = np.uint8) -> Shard:
    rng = np.random.default_rng(site)
    return Shard(
        {"i": rng.integers(0, 256, (20, 2, 2, 1)).astype(dtype)}, rng.integers(0, 3, 20).astype(np.int32)
    )


def numbers(x: np.ndarray, z: np.ndarray) -> Shard:
    return Shard({"x": x, "z": z}, (np.arange(len(x)) % 2).astype(np.int32))


def test_images_of_one_kind_of_pixels() -> None:
    held = [images(site) for site in range(3)]
    assert fit_total(total_of(held, IMAGE, SECURE), IMAGE, SECURE.preprocessing) == fit(
        [local_statistics(shard, IMAGE, SECURE.preprocessing) for shard in held], IMAGE, SECURE.preprocessing
    )
    with pytest.raises(DataError, match="different columns"):
        total_of([*held, images(3, np.float32)], IMAGE, SECURE)


def test_sequences_by_channel() -> None:
    held = []
    for site in range(3):
        rng = np.random.default_rng(site)
        values = rng.normal([5.0, -300.0], [1.0, 40.0], (30, 6, 2)).astype(np.float32)
        held.append(Shard({"s": values}, rng.normal(size=30).astype(np.float32)))
    found = total_of(held, SEQUENCE, SECURE).sequences["s"]
    pooled = np.concatenate([shard.columns["s"] for shard in held]).astype(np.float64)
    assert [channel.count for channel in found] == [540, 540]  # 3 sites of 30 rows of 6 steps
    assert [channel.mean for channel in found] == pytest.approx(pooled.mean(axis=(0, 1)), rel=1e-6)
    assert [channel.std for channel in found] == pytest.approx(pooled.std(axis=(0, 1)), rel=1e-5)


def test_a_column_far_from_zero_keeps_its_spread() -> None:
    """Years 1990 to 2009 lie in one or two bins of the grid; a fixed grid alone would give no spread."""
    years = np.repeat(np.arange(1990.0, 2010.0), 3)
    total = total_of([numbers(years, np.full(60, 7.0))] * 3, NUMBERS, SECURE)
    assert total.numeric["x"].moments.mean == pytest.approx(1999.5, rel=1e-8)
    # of 20 equally likely whole numbers the variance is (20² - 1) / 12
    assert total.numeric["x"].moments.std == pytest.approx((399 / 12) ** 0.5, rel=1e-4)
    assert total.numeric["z"].moments.mean == pytest.approx(7, rel=1e-6)
    assert total.numeric["z"].moments.std == 0


def test_an_outlier_leaves_mean_and_spread_of_the_rest_to_one_part_in_a_thousand() -> None:
    rng = np.random.default_rng(0)
    x = [rng.normal(1, 0.1, 200) for _ in range(3)]
    x[0][:5] = 1e5
    total = total_of([numbers(part, part) for part in x], NUMBERS, SECURE)
    pooled = np.concatenate(x)
    assert total.numeric["x"].moments.mean == pytest.approx(pooled.mean(), rel=1e-3)
    assert total.numeric["x"].moments.std == pytest.approx(pooled.std(), rel=1e-3)


def test_a_column_of_one_site_is_left_out() -> None:
    gone = np.full(20, np.nan)
    held = [numbers(np.arange(20.0), np.arange(20.0) if site == 0 else gone) for site in range(3)]
    total = total_of(held, NUMBERS, SECURE)
    assert total.numeric["z"].sites == 1
    assert [c.name for c in fit_total(total, NUMBERS, SECURE.preprocessing).numeric] == ["x"]


def test_few_rows_say_nothing_and_few_sites_fit_nothing() -> None:
    full, few = numbers(np.arange(20.0), np.arange(20.0)), numbers(np.arange(4.0), np.arange(4.0))
    asked = ShardSum([full, few, few], NUMBERS, SECURE)
    source = randomness("seeded", 1, "statistics-noise")
    with pytest.raises(DisclosureError, match="1 clients could report statistics"):
        SummedStatistics(asked, 3, NUMBERS, SECURE, source).total()
    assert [vector.any() for vector in asked.answers["numbers"]] == [True, False, False]


@pytest.mark.parametrize(("rows", "largest"), [((8, 9, 16), 16), ((8, 9, 17), 32), ((6, 6, 5), 8)])
def test_the_largest_site_is_known_to_a_power_of_two(rows: tuple[int, ...], largest: int) -> None:
    held = [numbers(np.arange(float(n)), np.arange(float(n))) for n in rows]
    asked = ShardSum(held, NUMBERS, SECURE)
    told = SummedStatistics(asked, 3, NUMBERS, SECURE, randomness("seeded", 1, "statistics-noise"))
    told.total()
    assert told.largest == largest


def test_counts_that_were_not_reported_show_as_a_dash() -> None:
    assert (count(-1), count(1234)) == (NONE, "1,234")
