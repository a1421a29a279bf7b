"""Sums over clients give what a fit on pooled rows gives; one row or client moves them by what is stated."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from summing import scenario_with, total_of

from shoal.clients.preprocessing.contribution import Contribution
from shoal.clients.preprocessing.statistics import local_statistics
from shoal.common.preprocessing import Statistics
from shoal.common.preprocessing.sums.grid import Grid
from shoal.common.preprocessing.sums.layout import Layout
from shoal.common.preprocessing.sums.names import NameTable
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.preprocessing.sums.wide import gathered, spread
from shoal.common.schema import Column, Schema, Shard
from shoal.server.preprocessing.fit import fit, fit_total

TABLE = Schema((Column("x", "numeric"), Column("c", "categorical")), "binary", ("no", "yes"), "y")
TEXT = Schema((Column("t", "text"),), "binary", ("no", "yes"), "y")
SEQUENCE = Schema((Column("s", "sequence", (4, 2)),), "binary", ("no", "yes"), "y")
OPEN = scenario_with()
STRICT = scenario_with(preprocessing={"min_count": 5, "min_sites": 2})
RECORD = {"unit": "record", "statistics_epsilon": 1.0, "noise_multiplier": 1.0}
CLIENT = {"unit": "client", "statistics_epsilon": 1.0, "noise_multiplier": 1.0}

values = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_subnormal=False))
names = st.sampled_from(["a", "b", "c", "rare", None])
rows = st.lists(st.tuples(values, names, st.integers(0, 1)), min_size=1, max_size=60)


def table(part: list[Any]) -> Shard:
    x = np.array([math.nan if r[0] is None else r[0] for r in part], np.float64)
    columns = {"x": x, "c": np.array([r[1] for r in part], object)}
    return Shard(columns, np.array([r[2] for r in part], np.int32))


def cut_at(rows: list[Any], cuts: list[int]) -> list[list[Any]]:
    edges = sorted({0, len(rows), *(min(c, len(rows)) for c in cuts)})
    return [rows[a:b] for a, b in pairwise(edges)]


@given(rows=rows, cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=60, deadline=None)
def test_vectors_of_parts_add_up_to_the_vector_of_all_rows(rows: list[Any], cuts: list[int]) -> None:
    """Only the counts of sites differ, since the pooled rows are one site."""
    plan = SumsPlan.of(TABLE, OPEN)
    layout, ranges = plan.numbers(), {"x": (-1e6, 1e6)}
    parts = [Contribution(table(part), plan) for part in cut_at(rows, cuts)]
    pooled = layout.cut(Contribution(table(rows), plan).numbers({}))
    summed = layout.cut(np.sum([part.numbers({}) for part in parts], axis=0))
    for name in set(pooled) - {"sites", "sizes", "told", "buckets c"}:
        assert (pooled[name] == summed[name]).all(), name
    assert ((summed["buckets c"] > 0) == (pooled["buckets c"] > 0)).all()
    whole = Contribution(table(rows), plan).moments(ranges)
    assert (np.sum([part.moments(ranges) for part in parts], axis=0) == whole).all()


@given(rows=rows, cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_fit_on_sums_is_the_fit_on_pooled_rows(rows: list[Any], cuts: list[int]) -> None:
    shards = [table(part) for part in cut_at(rows, cuts)]
    total = total_of(shards, TABLE, OPEN)
    x = table(rows).columns["x"]
    there = x[~np.isnan(x)]
    assert total.rows == len(rows)
    assert total.classes == tuple(np.bincount(table(rows).labels, minlength=2))
    pooled = Statistics.merge([local_statistics(shard, TABLE, OPEN.preprocessing) for shard in shards])
    assert total.categorical["c"].counts == pooled.categorical["c"].counts
    if not there.size:
        return
    column = total.numeric["x"]
    assert (column.moments.count, column.missing) == (there.size, np.isnan(x).sum())
    # values are rounded to 2^-24 of the half range of bins, which are 2 % wide; sums of them are exact
    half = max(1e-6, float(there.max() - there.min())) + 0.03 * float(np.abs(there).max())
    assert column.moments.mean == pytest.approx(there.mean(), abs=2.0**-23 * half)
    # a variance v off by e is a deviation off by e / sqrt(v), and by sqrt(e) at most
    assert column.moments.std == pytest.approx(there.std(), abs=2.0**-11 * half)
    exact = float(np.quantile(there, 0.5, method="lower"))
    assert column.sketch.quantile(0.5) == pytest.approx(exact, rel=0.0101, abs=1.01e-6)


def test_the_vocabulary_and_its_order_are_those_of_a_fit_in_the_clear() -> None:
    rng = np.random.default_rng(0)
    words = [f"词{i}" for i in range(300)]
    shards = []
    for _ in range(4):  # word i is in about 120 / (i + 1) of 60 rows, so that many are rare at each site
        texts = [" ".join(w for i, w in enumerate(words) if rng.random() < 2 / (i + 1)) for _ in range(60)]
        shards.append(Shard({"t": np.array(texts, object)}, rng.integers(0, 2, 60).astype(np.int32)))
    told = [local_statistics(shard, TEXT, STRICT.preprocessing) for shard in shards]
    clear = fit(told, TEXT, STRICT.preprocessing)
    summed = fit_total(total_of(shards, TEXT, STRICT), TEXT, STRICT.preprocessing)
    assert clear.tokens is not None
    assert len(clear.tokens.vocabulary) > 10
    assert summed == clear


def moved(layout: Layout, one: NDArray[np.int64], other: NDArray[np.int64]) -> dict[str, float]:
    """Return how far each block moves, as a part of its sensitivity."""
    a, b = layout.cut(one), layout.cut(other)
    return {
        block.name: float(np.linalg.norm(a[block.name] - b[block.name])) / block.sensitivity
        for block in layout.blocks
        if block.sensitivity
    }


def assert_within(layout: Layout, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    found = moved(layout, one, other)
    assert all(share <= 1 + 1e-9 for share in found.values()), found
    # and so the whole vector, scaled by its noise, moves by at most one noise multiplier
    total = math.sqrt(sum((found.get(b.name, 0.0) ** 2) * b.share for b in layout.blocks))
    assert total <= 1 + 1e-9
    assert sum(block.share for block in layout.blocks) == pytest.approx(1)


@given(rows=rows, gone=st.integers(0, 59), clip=st.integers(1, 9), min_count=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_one_row_moves_a_table_by_at_most_the_sensitivity(
    rows: list[Any], gone: int, clip: int, min_count: int
) -> None:
    scenario = scenario_with(privacy=RECORD, preprocessing={"min_count": min_count, "min_sites": 1})
    plan = SumsPlan.of(TABLE, scenario)
    fewer = [row for i, row in enumerate(rows) if i != gone % len(rows)]
    one, other = Contribution(table(rows), plan), Contribution(table(fewer), plan)
    assert_within(plan.numbers(), one.numbers({"c": clip}), other.numbers({"c": clip}))
    ranges = {"x": (-1e3, 1e5)}
    assert_within(plan.moments(), one.moments(ranges), other.moments(ranges))
    listed = {"c": ["a", "b", "c", "other", "rare"]}
    counts = [part.counts(listed, {"c": clip}) for part in (one, other)]
    assert_within(plan.counts({"c": 5}), *counts)


@given(
    texts=st.lists(st.lists(st.sampled_from("甲乙丙丁戊己庚辛"), max_size=8), min_size=1, max_size=12),
    gone=st.integers(0, 11),
    clip=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_one_text_moves_its_words_by_at_most_the_sensitivity(
    texts: list[list[str]], gone: int, clip: int
) -> None:
    """With tokens = 3 a text counts for three words at most, however many it has."""
    preprocessing = {"min_count": 2, "min_sites": 1, "tokens": 3, "vocabulary": 10}
    plan = SumsPlan.of(TEXT, scenario_with(privacy=RECORD, preprocessing=preprocessing))
    column = [" ".join(words) for words in texts]
    fewer = column[: gone % len(column)] + column[gone % len(column) + 1 :]
    one, other = (
        Contribution(Shard({"t": np.array(part, object)}, np.zeros(len(part), np.int32)), plan)
        for part in (column, fewer)
    )
    assert_within(plan.numbers(), one.numbers({"t": clip}), other.numbers({"t": clip}))
    listed = {"t": list("丁丙乙己庚戊甲辛")}
    assert_within(plan.counts({"t": 8}), one.counts(listed, {"t": clip}), other.counts(listed, {"t": clip}))


@given(data=st.lists(st.lists(st.floats(-10, 10), min_size=8, max_size=8), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_one_row_of_a_sequence_moves_it_by_at_most_its_steps(data: list[list[float]]) -> None:
    plan = SumsPlan.of(SEQUENCE, scenario_with(privacy=RECORD))
    whole = np.array(data, np.float32).reshape(-1, 4, 2)
    one, other = (
        Contribution(Shard({"s": part}, np.zeros(len(part), np.int32)), plan) for part in (whole, whole[1:])
    )
    assert_within(plan.numbers(), one.numbers({}), other.numbers({}))
    ranges = dict.fromkeys(plan.channels, (-1.0, 5.0))
    assert_within(plan.moments(), one.moments(ranges), other.moments(ranges))


@given(rows=rows, unit=st.sampled_from(["client"]))
@settings(max_examples=80, deadline=None)
def test_one_client_moves_a_table_by_at_most_the_sensitivity(rows: list[Any], unit: str) -> None:
    """Taking a client away takes its whole vector out of the sum, whatever its rows are."""
    plan = SumsPlan.of(TABLE, scenario_with(privacy=CLIENT))
    own, ranges = Contribution(table(rows), plan), {"x": (-1e3, 1e5)}
    listed = {"c": ["a", "b", "c", "rare"]}
    for layout, vector in (
        (plan.numbers(), own.numbers({"c": 1})),
        (plan.moments(), own.moments(ranges)),
        (plan.counts({"c": 4}), own.counts(listed, {"c": 1})),
    ):
        assert_within(layout, vector, np.zeros_like(vector))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_places_are_within_the_stated_error_of_values_in_the_grid(numbers: list[float]) -> None:
    for grid in (Grid(0.01), Grid(0.1)):
        x = np.array(numbers)
        where = grid.index(x)
        assert ((where >= 0) & (where < grid.bins)).all()
        inside = (np.abs(x) > 1e-6) & (np.abs(x) < 1e9)
        assert (np.abs(grid.places()[where] - x) <= grid.alpha * np.abs(x) * (1 + 1e-9))[inside].all()
        assert (np.diff(where[np.argsort(x, kind="stable")]) >= 0).all()
        low, high = grid.edges()[where][inside], grid.edges()[where + 1][inside]
        slack = 1e-9 * np.abs(x[inside])
        assert ((low - slack <= x[inside]) & (x[inside] <= high + slack)).all()


@given(
    sites=st.lists(
        st.dictionaries(st.text(min_size=1, max_size=10), st.integers(0, 1000), max_size=12), max_size=5
    )
)
@settings(max_examples=80, deadline=None)
def test_a_summed_table_of_names_reads_back(sites: list[dict[str, int]]) -> None:
    """Read by brute force: how many sites tell a name, and their rows together."""
    shape = NameTable("c", 60, 40)
    told = [{name: n for name, n in site.items() if shape.fits(name)} for site in sites]
    summed = np.sum([shape.filled(site) for site in told], axis=0, initial=0) + np.zeros(shape.size, np.int64)
    found = shape.read(summed)
    wanted = {
        name: (sum(name in site for site in told), sum(site.get(name, 0) for site in told))
        for name in {name for site in told for name in site}
    }
    # 60 names at most in 180 cells: two of them share all three cells with a chance of 1,770 / 60³
    assert found in (wanted, None)
    if len(wanted) <= 5:
        assert found == wanted


@given(
    numbers=st.lists(st.lists(st.integers(-(2**50), 2**50), min_size=3, max_size=3), min_size=1, max_size=9)
)
def test_digits_add_up_modulo_32_bits_to_sums_of_64(numbers: list[list[int]]) -> None:
    vectors = np.array(numbers, np.int64)
    digits = np.sum([spread(vector).astype(np.uint32) for vector in vectors], axis=0, dtype=np.uint32)
    assert (gathered(digits.view(np.int32).astype(np.int64)) == vectors.sum(axis=0)).all()
