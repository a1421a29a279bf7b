"""What each partition scheme does to sizes and labels, and what it refuses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shoal.common.config import DataConfig, PartitionConfig
from shoal.common.errors import ConfigError, EmptyClientError
from shoal.simulations.datasets.partition import partition
from shoal.simulations.datasets.raw import Raw
from shoal.simulations.datasets.table import StoredTable, build_table


def make(rows: int = 1000, classes: int = 10, sites: list[str] | None = None) -> StoredTable:
    columns: dict[str, object] = {"row": np.arange(rows), "y": np.arange(rows) % classes}
    if sites is not None:
        columns["site"] = sites
    raw = Raw(pa.table(columns), label="y", site=None if sites is None else "site")
    return build_table(raw, DataConfig(source="own", task="multiclass"))


def counts(table: StoredTable, config: PartitionConfig, seed: int = 1) -> np.ndarray:
    """Return rows by client and class (clients, classes)."""
    population = partition(table, config, seed)
    classes = table.schema.num_classes
    return np.stack(
        [np.bincount(population.shard(i).labels, minlength=classes) for i in range(len(population))]
    )


def distance(found: np.ndarray) -> float:
    """Return the mean total variation distance of clients' labels from all labels, in [0, 1)."""
    shares = found / found.sum(axis=1, keepdims=True)
    return float(np.abs(shares - found.sum(axis=0) / found.sum()).sum(axis=1).mean() / 2)


def test_smaller_alpha_means_more_label_skew() -> None:
    skews = [
        distance(counts(make(), PartitionConfig(scheme="dirichlet", clients=5, alpha=alpha, min_rows=2)))
        for alpha in (0.1, 1.0, 1000.0)
    ]
    assert skews[0] > 0.5 > skews[1] > 0.05 > skews[2]


def test_iid_keeps_the_label_balance() -> None:
    assert distance(counts(make(), PartitionConfig(scheme="iid", clients=4))) < 0.1


def test_shards_give_a_client_few_classes() -> None:
    # 1,000 rows in 5 x 2 shards of 100: each shard is exactly one of the ten classes.
    found = counts(make(), PartitionConfig(scheme="shards", clients=5, shards_per_client=2))
    assert np.count_nonzero(found, axis=1).tolist() == [2] * 5
    assert found.sum(axis=1).tolist() == [200] * 5


def test_shards_hand_out_what_is_left_over() -> None:
    # 1,009 rows in 10 shards of 100 leave the nine rows that sort last: all of class 9.
    found = counts(make(1009), PartitionConfig(scheme="shards", clients=5, shards_per_client=2))
    assert found.sum() == 1009
    assert found.sum(axis=1).max() <= 209


@pytest.mark.parametrize(
    ("skew", "units"),
    [
        ("linear", [1, 2, 3, 4]),
        ("square", [1, 4, 9, 16]),
        ("exponential", [np.e, np.e**2, np.e**3, np.e**4]),
    ],
)
def test_quantity_follows_its_function(skew: str, units: list[float]) -> None:
    config = PartitionConfig(scheme="quantity", clients=4, skew=skew)  # type: ignore[arg-type]
    sizes = counts(make(), config).sum(axis=1)
    wanted = np.floor(1000 * np.asarray(units) / sum(units))
    wanted[-1] += 1000 - wanted.sum()  # the largest takes what rounding leaves
    assert sizes.tolist() == wanted.tolist()


def test_natural_splits_sites_in_proportion_and_names_the_parts() -> None:
    # 60, 30 and 10 rows over 6 clients: the largest part is halved in turn, 60 → 30, 30 → 20, 20, 20, and
    # one more for the 30 of the second.
    table = make(100, 2, ["big"] * 60 + ["mid"] * 30 + ["low"] * 10)
    population = partition(table, PartitionConfig(clients=6), 1)
    assert [(population.name(i), population.rows(i)) for i in range(6)] == [
        ("big-01", 20), ("big-02", 20), ("big-03", 20), ("mid-01", 15), ("mid-02", 15), ("low", 10),
    ]  # fmt: skip


def test_a_site_named_like_a_part_keeps_its_rows() -> None:
    table = make(100, 2, ["a"] * 70 + ["a-01"] * 30)
    population = partition(table, PartitionConfig(clients=3), 1)
    assert [population.name(i) for i in range(3)] == ["a-01", "a-02", "a-01 (2)"]
    assert sum(map(population.rows, range(3))) == 100


def test_natural_equals_the_partitioner_of_flwr_datasets() -> None:
    import datasets
    from flwr_datasets.partitioner import NaturalIdPartitioner

    datasets.disable_progress_bars()
    sites = np.random.default_rng(3).choice(["x", "y", "z"], 90, p=[0.5, 0.3, 0.2]).tolist()
    theirs = NaturalIdPartitioner(partition_by="site")
    theirs.dataset = datasets.Dataset.from_dict({"row": list(range(90)), "site": sites})
    expected = {sites[p["row"][0]]: list(p["row"]) for p in map(theirs.load_partition, range(3))}
    ours = partition(make(90, 2, sites), PartitionConfig(), 1)
    assert {ours.name(i): ours.shard(i).columns["row"].tolist() for i in range(3)} == expected


def test_another_seed_gives_another_partition() -> None:
    config = PartitionConfig(scheme="iid", clients=2)
    one, other = (partition(make(), config, seed).shard(0).columns["row"] for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_small_clients_are_left_out_and_named() -> None:
    table = make(25, 2, ["a"] * 15 + ["b"] * 7 + ["c"] * 3)
    population = partition(table, PartitionConfig(min_rows=5), 1)
    assert [population.name(i) for i in range(len(population))] == ["a", "b"]
    assert population.left_out == {"c": 3}
    with pytest.raises(EmptyClientError, match=r"all 3 clients.*the largest has 15"):
        partition(table, PartitionConfig(min_rows=16), 1)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"scheme": "iid", "clients": 31}, "31 clients need at least 31 rows, but there are 30"),
        ({"clients": 31}, "31 clients need at least 31 rows, but there are 30"),
        ({"clients": 2}, "less than the 3 sites"),
        ({"scheme": "shards", "clients": 8, "shards_per_client": 4}, "at least 32 rows"),
        ({"scheme": "quantity", "clients": 20, "skew": "exponential"}, "less skew"),
        ({"scheme": "quantity", "clients": 29, "skew": "exponential"}, "cannot be divided among 29 clients"),
    ],
)
def test_numbers_that_do_not_work_out(config: dict[str, object], told: str) -> None:
    table = make(30, 2, ["a", "b", "c"] * 10)
    with pytest.raises(ConfigError, match=told):
        partition(table, PartitionConfig.model_validate({"min_rows": 2} | config), 1)


def test_many_exponential_clients_are_refused_without_a_warning() -> None:
    with pytest.raises(ConfigError, match="cannot be divided among 800 clients"):  # exp(800) is infinite
        partition(make(), PartitionConfig(scheme="quantity", clients=800, skew="exponential"), 1)


@pytest.mark.parametrize("scheme", ["dirichlet", "shards"])
def test_label_skew_needs_classes(scheme: str) -> None:
    raw = Raw(pa.table({"x": np.arange(40.0), "y": np.arange(40) / 7}), label="y")
    table = build_table(raw, DataConfig(source="own"))
    with pytest.raises(ConfigError, match="regression"):
        partition(table, PartitionConfig(scheme=scheme, clients=2), 1)  # type: ignore[arg-type]


def test_a_client_that_is_not_there() -> None:
    population = partition(make(), PartitionConfig(scheme="iid", clients=2), 1)
    for client in (-1, 2):
        with pytest.raises(IndexError):
            population.shard(client)
