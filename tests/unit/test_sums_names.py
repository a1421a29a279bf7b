"""How names are found from sums alone, and how rarely a rare one is told."""

from __future__ import annotations

import numpy as np
import pytest
from summing import ShardSum, scenario_with, total_of

from shoal.clients.preprocessing.names import marked
from shoal.common.errors import DataError, DisclosureError
from shoal.common.preprocessing.sums.buckets import HASHES, bucket_count, hashed
from shoal.common.preprocessing.sums.names import NameTable, cells_for
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.preprocessing.sums.questions import Questions
from shoal.common.privacy.noise import randomness
from shoal.common.schema import Column, Schema, Shard
from shoal.server.preprocessing.summed_statistics import SummedStatistics
from shoal.server.preprocessing.sums import SummedVector

SCHEMA = Schema((Column("c", "categorical"),), "binary", ("no", "yes"), "y")
STRICT = scenario_with(preprocessing={"min_count": 5, "min_sites": 2}, secure={"aggregation": True})


def column(**rows: int) -> Shard:
    names = [name for name, n in rows.items() for _ in range(n)]
    return Shard({"c": np.array(names, object)}, (np.arange(len(names)) % 2).astype(np.int32))


def test_names_of_enough_sites_are_found_with_their_rows_and_no_others() -> None:
    """By hand, min_count 5: "both" has 10 + 20 rows at two sites, "one" is at one only, "few" and "less" have
    4 rows at each site, together enough to be left out without telling of a few."""
    shards = [
        column(both=10, one=30, few=4, less=4, other=6),
        column(both=20, few=4, less=4, other=6),
        column(third=9),
    ]
    counts = total_of(shards, SCHEMA, STRICT).categorical["c"].counts
    assert (counts.values, counts.counts, counts.sites) == (("both", "other"), (30, 12), (2, 2))


def test_a_name_of_one_site_is_in_no_vector_that_leaves() -> None:
    """Each site's own table, which the server would only see as a sum, reads as the common names alone."""
    shards = [column(common=10, secret=30), column(common=10, other=30), column(common=10, third=30)]
    asked = ShardSum(shards, SCHEMA, STRICT)
    SummedStatistics(asked, 3, SCHEMA, STRICT, randomness("seeded", 1, "statistics-noise")).total()
    plan = SumsPlan.of(SCHEMA, STRICT)
    # one heavy bucket in each row: int(1.2 · 1) names
    table = plan.table("c", cells_for(1, 0), 0)
    assert [table.read(vector) for vector in asked.answers["names"]] == [{"common": (1, 10)}] * 3


def test_a_rare_name_is_reported_as_rarely_as_stated() -> None:
    """h = 150 common names in m = 1,024 buckets: (h / m)⁴ = 4.6e-4 at most, so of 20,000 rare names 9 in the
    mean; more than 25 has a chance of 4e-6 (Poisson). With one row of buckets about 13.6 % would be."""
    buckets = bucket_count(128)
    assert buckets == 1024
    common, rare = [f"common {i}" for i in range(150)], [f"rare {i}" for i in range(20_000)]
    heavy = np.zeros((HASHES, buckets), bool)
    heavy[np.arange(HASHES), hashed(common, "c", buckets, "sites", HASHES)] = True
    assert marked(common, "c", heavy) == common
    assert len(marked(rare, "c", heavy)) <= 25
    share = heavy.mean(axis=1)
    assert len(marked(rare, "c", heavy[:1])) == pytest.approx(20_000 * share[0], abs=250)


def test_rows_of_buckets_and_columns_are_independent() -> None:
    places = hashed([f"name {i}" for i in range(5_000)], "c", 64, "sites", HASHES)
    other = hashed([f"name {i}" for i in range(5_000)], "d", 64, "sites", HASHES)
    for one, two in [(places[:, 0], places[:, 1]), (places[:, 0], other[:, 0])]:
        # equal by chance for 5,000 / 64 = 78 names, give or take 5 · sqrt(78) = 44
        assert abs((one == two).sum() - 78) < 44
    counts = np.bincount(places[:, 0], minlength=64)
    assert ((counts - 78.1) ** 2 / 78.1).sum() < 110  # chi-square of 63: more has a chance of 2e-4


def test_almost_all_tables_can_be_read_at_the_first_attempt() -> None:
    names = [f"name {i}" for i in range(2_000)]
    shape = NameTable("c", cells_for(2_000, 0), 32)
    assert shape.read(shape.filled(dict.fromkeys(names, 7)) * 3) == dict.fromkeys(names, (3, 21))
    crowded = NameTable("c", 500, 32)  # 1,500 cells for 2,000 names
    assert crowded.read(crowded.filled(dict.fromkeys(names, 7))) is None


def test_an_unreadable_table_is_asked_for_again_twice_as_large() -> None:
    shards = [column(both=10, other=9), column(both=20, other=9), column(both=20, other=9)]

    class Spoiled(ShardSum):
        spoilt = 0

        def __call__(self, question, size):  # type: ignore[no-untyped-def]
            summed = super().__call__(question, size)
            if question["pass"] == "names" and self.spoilt > 0:
                self.spoilt -= 1
                return SummedVector(summed.vector + 1, summed.clients)
            return summed

    asked = Spoiled(shards, SCHEMA, STRICT)
    asked.spoilt = 2
    source = randomness("seeded", 1, "statistics-noise")
    total = SummedStatistics(asked, 3, SCHEMA, STRICT, source).total()
    assert total.categorical["c"].counts.values == ("both", "other")
    sizes = [vector.size for vector in asked.answers["names"][::3]]
    assert sizes[1] / sizes[0] == sizes[2] / sizes[1] == 2
    asked.spoilt = 10
    with pytest.raises(DataError, match="cannot be read"):
        SummedStatistics(asked, 3, SCHEMA, STRICT, source).total()


def test_a_client_does_not_answer_a_server_that_calls_everything_common() -> None:
    plan = SumsPlan.of(SCHEMA, STRICT)
    questions = Questions(plan)
    everything = {"c": np.ones((HASHES, bucket_count(64)), bool)}
    values = questions.names(everything, {"c": plan.table("c", 20, 0)})
    with pytest.raises(DisclosureError, match="more than half of the buckets"):
        questions.read_heavy(values)


@pytest.mark.parametrize("name", ["", "a" * 129, "with\0zero", "字" * 43])
def test_names_that_no_cell_holds_are_not_reported(name: str) -> None:
    shape = SumsPlan.of(SCHEMA, STRICT).table("c", 20, 0)
    assert not shape.fits(name)
    assert shape.fits("字" * 42)


def test_names_of_any_text_survive() -> None:
    names = {"\ud800 lone surrogate": 6, "é 字": 7, "x" * 128: 8}
    shape = SumsPlan.of(SCHEMA, STRICT).table("c", 20, 0)
    assert shape.read(shape.filled(names) * 2) == {name: (2, 2 * n) for name, n in names.items()}
