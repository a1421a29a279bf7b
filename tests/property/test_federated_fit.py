"""Preprocessing fitted over clients equals the fit on pooled rows; the disclosure rule holds for any rows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.clients.preprocessing.statistics import local_statistics
from shoal.common.config import PreprocessingConfig
from shoal.common.errors import DisclosureError
from shoal.common.preprocessing import Statistics
from shoal.common.preprocessing.statistics_records import pack, unpack
from shoal.common.schema import Column, Schema, Shard
from shoal.server.preprocessing.fit import class_weights, fit

SCHEMA = Schema((Column("x", "numeric"), Column("c", "categorical")), "binary", ("no", "yes"), "y")
OPEN = PreprocessingConfig(min_sites=1, min_count=1, impute="mean")
STRICT = PreprocessingConfig(min_sites=2, min_count=5)

values = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_subnormal=False))
rows = st.lists(
    st.tuples(values, st.sampled_from(["a", "b", "c", "rare", None]), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


def shard(part: list[Any]) -> Shard:
    x = np.array([math.nan if r[0] is None else r[0] for r in part], np.float64)
    columns = {"x": x, "c": np.array([r[1] for r in part], object)}
    return Shard(columns, np.array([r[2] for r in part], np.int32))


@given(rows=rows, cuts=st.lists(st.integers(0, 60), max_size=5), order=st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_federated_equals_pooled(rows: list[Any], cuts: list[int], order: Any) -> None:
    edges = sorted({0, len(rows), *(min(c, len(rows)) for c in cuts)})
    parts = [rows[a:b] for a, b in pairwise(edges)]
    order.shuffle(parts)
    told = [local_statistics(shard(part), SCHEMA, OPEN) for part in parts]
    total = Statistics.merge(told)
    x, c = shard(rows).columns["x"], shard(rows).columns["c"]
    there = x[~np.isnan(x)]
    assert total.rows == len(rows)
    assert total.numeric["x"].missing == np.isnan(x).sum()
    assert total.numeric["x"].moments.count == there.size
    if there.size:
        scale = max(1.0, float(np.abs(there).max()))
        assert total.numeric["x"].moments.mean == pytest.approx(there.mean(), abs=1e-12 * scale * len(rows))
        assert total.numeric["x"].moments.std == pytest.approx(there.std(), abs=1e-7 * scale)
    counts = total.categorical["c"].counts
    assert dict(zip(counts.values, counts.counts, strict=True)) == {
        v: n for v in set(c.tolist()) - {None} if (n := int((c == v).sum()))
    }
    assert total.classes == tuple(np.bincount(shard(rows).labels, minlength=2))
    # what is fitted does not depend on the order in which clients answered, not even in the last bit
    if there.size:
        assert fit(told, SCHEMA, OPEN) == fit(told[::-1], SCHEMA, OPEN)


@given(rows=rows)
@settings(max_examples=150, deadline=None)
def test_whatever_the_rows_no_number_speaks_of_one_to_four_of_them(rows: list[Any]) -> None:
    told = local_statistics(shard(rows), SCHEMA, STRICT)
    told.check(5)  # raises DisclosureError otherwise
    if len(rows) < 5:
        assert told == Statistics()
        return
    for count in (*told.classes, *told.categorical["c"].counts.counts, told.numeric["x"].moments.count):
        assert count == 0 or count >= 5
    assert all(count >= 5 for count in told.numeric["x"].sketch.counts)
    assert unpack(pack(told)) == told


def test_a_category_of_one_site_is_not_kept() -> None:
    common = [(1.0 * i, "a", i % 2) for i in range(20)]
    only_here = [(1.0 * i, "b", i % 2) for i in range(20)]
    told = [
        local_statistics(shard(common + only_here), SCHEMA, STRICT),
        local_statistics(shard(common), SCHEMA, STRICT),
    ]
    assert fit(told, SCHEMA, STRICT).categorical[0].categories == ("a",)


def test_too_few_sites_fit_nothing() -> None:
    told = [local_statistics(shard([(1.0 * i, "a", i % 2) for i in range(20)]), SCHEMA, STRICT), Statistics()]
    with pytest.raises(DisclosureError, match="1 clients could report statistics"):
        fit(told, SCHEMA, STRICT)


def test_statistics_that_break_the_rule_are_refused_on_arrival() -> None:
    careless = local_statistics(shard([(1.0 * i, "a" if i else "rare", 1) for i in range(20)]), SCHEMA, OPEN)
    with pytest.raises(DisclosureError, match="fewer than 5") as caught:
        fit([careless, careless], SCHEMA, STRICT)
    assert "rare" not in str(caught.value)


def test_class_weights_by_hand() -> None:
    """30 rows of class 0 and 10 of class 1 over two clients: 40 / (2 · 30) and 40 / (2 · 10)."""
    told = [
        local_statistics(shard([(0.0, "a", 0)] * 15 + [(0.0, "a", 1)] * 5), SCHEMA, STRICT) for _ in range(2)
    ]
    assert class_weights(Statistics.merge(told), SCHEMA) == pytest.approx({0: 2 / 3, 1: 2.0})
    assert class_weights(Statistics(), SCHEMA) is None
