"""Laws of every partition scheme: disjoint, complete up to the named clients, decided by the seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.common.config import DataConfig, PartitionConfig
from shoal.common.errors import ConfigError, EmptyClientError
from shoal.simulations.datasets.partition import partition
from shoal.simulations.datasets.raw import Raw
from shoal.simulations.datasets.table import StoredTable, TablePopulation, build_table

SCHEMES = ("natural", "size", "iid", "dirichlet", "shards", "quantity")
# The first call imports flwr-datasets, which takes seconds.
quick = settings(deadline=None, max_examples=25)


@st.composite
def tables(draw: st.DrawFn) -> StoredTable:
    """Rows whose one input is their own number, so that a shard tells which rows it holds."""
    rows = draw(st.integers(8, 120))
    seed = draw(st.integers(0, 2**31 - 1))
    rng = np.random.default_rng(seed)
    sites = rng.choice(["a", "b", "a-01", "大"], rows, p=rng.dirichlet(np.full(4, 0.7)))
    labels = np.concatenate([[0, 1], rng.integers(0, draw(st.integers(2, 5)), rows - 2)])
    raw = Raw(pa.table({"row": np.arange(rows), "y": labels, "site": sites}), label="y", site="site")
    return build_table(raw, DataConfig(source="own", task="multiclass"))


@st.composite
def configs(draw: st.DrawFn, scheme: str) -> PartitionConfig:
    clients = draw(st.integers(1, 8))
    if scheme == "natural":
        clients = draw(st.integers(4, 8)) if draw(st.booleans()) else None  # type: ignore[assignment]
    return PartitionConfig(
        scheme=scheme,  # type: ignore[arg-type]
        clients=clients,
        alpha=draw(st.sampled_from([0.05, 0.5, 50.0])),
        shards_per_client=draw(st.integers(1, 3)),
        skew=draw(st.sampled_from(["linear", "exponential", "square"])),
        max_rows=draw(st.integers(1, 40)),
        min_rows=draw(st.integers(2, 10)),
    )


def attempt(table: StoredTable, config: PartitionConfig, seed: int) -> TablePopulation | None:
    """Return the population, or `None` where the scheme refuses the numbers."""
    try:
        return partition(table, config, seed)
    except EmptyClientError:
        return None
    except ConfigError:
        # Only these may refuse: too few rows for the last client's part, or for so many shards.
        assert config.scheme in ("quantity", "shards")
        return None


def held(population: TablePopulation) -> list[list[int]]:
    return [population.shard(i).columns["row"].astype(int).tolist() for i in range(len(population))]


@pytest.mark.parametrize("scheme", SCHEMES)
@quick
@given(data=st.data(), seed=st.integers(0, 1000))
def test_rows_go_to_exactly_one_client(scheme: str, data: st.DataObject, seed: int) -> None:
    table, config = data.draw(tables()), data.draw(configs(scheme))
    population = attempt(table, config, seed)
    if population is None:
        return
    rows = held(population)
    together = [row for part in rows for row in part]
    assert len(set(together)) == len(together)  # disjoint
    assert len(together) + sum(population.left_out.values()) == table.rows  # complete
    assert [len(part) for part in rows] == [population.rows(i) for i in range(len(population))]
    assert all(len(part) >= config.min_rows for part in rows)
    assert all(count < config.min_rows for count in population.left_out.values())
    names = [population.name(i) for i in range(len(population))] + list(population.left_out)
    assert len(set(names)) == len(names)
    if config.clients is not None and scheme != "size":
        assert len(names) == config.clients
    labels = np.concatenate([population.shard(i).labels for i in range(len(population))])
    assert labels.tolist() == table.labels[together].tolist()  # rows keep their labels


@pytest.mark.parametrize("scheme", SCHEMES)
@quick
@given(data=st.data(), seed=st.integers(0, 1000))
def test_the_seed_decides(scheme: str, data: st.DataObject, seed: int) -> None:
    table, config = data.draw(tables()), data.draw(configs(scheme))
    first, again = attempt(table, config, seed), attempt(table, config, seed)
    if first is None or again is None:
        assert first is again
        return
    assert held(first) == held(again)
    assert first.left_out == again.left_out


@quick
@given(table=tables(), seed=st.integers(0, 1000))
def test_natural_is_group_by(table: StoredTable, seed: int) -> None:
    population = partition(table, PartitionConfig(min_rows=2), seed) if table.rows else None
    assert population is not None
    assert table.sites is not None
    sites = table.sites.take(np.arange(table.rows))
    found = {population.name(i): rows for i, rows in enumerate(held(population))}
    expected = {name: np.flatnonzero(sites == name).tolist() for name in set(sites)}
    assert found == {name: rows for name, rows in expected.items() if len(rows) >= 2}
    assert population.left_out == {name: 1 for name, rows in expected.items() if len(rows) == 1}


@quick
@given(table=tables(), clients=st.integers(4, 8), seed=st.integers(0, 1000))
def test_split_sites_stay_within_their_site_and_in_proportion(
    table: StoredTable, clients: int, seed: int
) -> None:
    population = attempt(table, PartitionConfig(clients=clients, min_rows=2), seed)
    assert table.sites is not None
    sites = table.sites.take(np.arange(table.rows))
    if population is None:
        return
    of_site: dict[str, list[int]] = {}
    for rows in held(population):
        assert len(set(sites[rows])) == 1
        of_site.setdefault(sites[rows[0]], []).append(len(rows))
    if not population.left_out:
        assert {site: sum(sizes) for site, sizes in of_site.items()} == Counter(sites)
    for sizes in of_site.values():
        assert max(sizes) - min(sizes) <= 1


@quick
@given(table=tables(), most=st.integers(2, 40), seed=st.integers(0, 1000))
def test_size_cuts_to_at_most_max_rows(table: StoredTable, most: int, seed: int) -> None:
    population = attempt(table, PartitionConfig(scheme="size", max_rows=most, min_rows=2), seed)
    if population is not None:
        assert all(population.rows(i) <= most for i in range(len(population)))


@quick
@given(table=tables(), clients=st.integers(1, 4), seed=st.integers(0, 1000))
def test_iid_sizes_differ_by_one_at_most(table: StoredTable, clients: int, seed: int) -> None:
    population = partition(table, PartitionConfig(scheme="iid", clients=clients, min_rows=2), seed)
    sizes = [population.rows(i) for i in range(clients)]
    assert max(sizes) - min(sizes) <= 1
