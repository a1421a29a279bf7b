"""The noise of sums of statistics: its size, what it costs, and what it hides."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from summing import scenario_with, total_of

from shoal.common.errors import ConfigError, DataError
from shoal.common.preprocessing.sums.layout import Block, Layout
from shoal.common.preprocessing.sums.noise import client_share, names_threshold, protection
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.privacy.accounting import Charge, epsilon
from shoal.common.privacy.noise import SeededRandomness
from shoal.common.schema import Column, Schema, Shard
from shoal.server.preprocessing.fit import fit_total

TABLE = Schema((Column("x", "numeric"), Column("c", "categorical")), "binary", ("no", "yes"), "y")
NUMBERS = Schema((Column("x", "numeric"),), "regression", (), "y")


def privacy(unit: str, **more: object) -> dict[str, object]:
    return {"unit": unit, "statistics_epsilon": 1.0, "noise_multiplier": 1.0} | more


def delta_of_gaussian(eps: float, multiplier: float, passes: int) -> float:
    """Balle, Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8.

    δ = Φ(μ/2 - ε/μ) - exp(ε) Φ(-μ/2 - ε/μ) with μ = sqrt(passes) / multiplier.
    """
    mu, phi = math.sqrt(passes) / multiplier, NormalDist().cdf
    return phi(mu / 2 - eps / mu) - math.exp(eps) * phi(-mu / 2 - eps / mu)


def test_the_noise_spends_the_epsilon_that_it_is_given() -> None:
    """With the tight account the exact formula must give the same noise to 1 in 1,000."""
    found = protection(TABLE, scenario_with(privacy=privacy("record", accountant="pld")))
    # a table with numbers and names: histograms, moments and counts
    assert found.charges == (Charge(found.multiplier, 3),)
    assert delta_of_gaussian(1.0, found.multiplier, 3) <= 1e-5
    assert delta_of_gaussian(1.0, found.multiplier / 1.002, 3) > 1e-5 * (1 - 1e-3)
    rdp = protection(TABLE, scenario_with(privacy=privacy("record")))
    assert epsilon(rdp.charges, 1e-5, "rdp") <= 1.0
    assert found.multiplier < rdp.multiplier < 1.2 * found.multiplier


def test_neighbours_are_those_of_the_rounds() -> None:
    """A cohort of fixed size counts what one client holds: up to twice the change, so twice the noise."""
    alone = protection(TABLE, scenario_with(privacy=privacy("client")))
    fixed = protection(TABLE, scenario_with(privacy=privacy("client"), strategy={"clients_per_round": 5}))
    assert fixed.multiplier == pytest.approx(2 * alone.multiplier, rel=1e-3)
    local = protection(NUMBERS, scenario_with(privacy=privacy("local")))
    record = protection(NUMBERS, scenario_with(privacy=privacy("record")))
    assert local.multiplier == pytest.approx(2 * record.multiplier, rel=1e-3)
    assert local.charges == record.charges


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.unit is"):
        protection(TABLE, scenario_with(privacy={"statistics_epsilon": 1.0}))
    with pytest.raises(ConfigError, match="categories and words of c"):
        protection(TABLE, scenario_with(privacy=privacy("local")))


def test_noise_has_the_stated_deviation_in_each_block() -> None:
    """Of 40,000 numbers the sample deviation is within 4 / sqrt(80,000) = 1.5 % with a chance of 0.99994."""
    layout = Layout((Block("a", 40_000, 2.0, 0.25), Block("b", 40_000, 1.0, 0.75), Block("c", 3)), 64, 5.0)
    noise = layout.noised(np.zeros(layout.size, np.int64), SeededRandomness(np.random.default_rng(3)))
    parts = layout.cut(noise)
    for name, stddev in (("a", 5 * 2 / 0.5), ("b", 5 * 1 / math.sqrt(0.75))):
        assert layout.stddev(name) == pytest.approx(stddev)
        assert parts[name].std() == pytest.approx(stddev, rel=0.015)
        assert abs(parts[name].mean()) < 4 * stddev / 200
    assert not parts["c"].any()


def test_shares_of_noise_add_up_to_all_of_it() -> None:
    """20 clients of which 14 must stay: each adds 1 / sqrt(14), so 14 of them add up to 1 and 20 to more."""
    secure = scenario_with(secure={"aggregation": True, "max_dropout": 0.3})
    assert client_share(20, secure) == pytest.approx(1 / math.sqrt(14))
    assert client_share(20, scenario_with()) == 1.0
    layout = Layout((Block("a", 20_000, 1.0, 1.0),), 64, 4.0)
    zero = np.zeros(20_000, np.int64)
    added = sum(
        layout.noised(zero, SeededRandomness(np.random.default_rng(k)), client_share(20, secure))
        for k in range(14)
    )
    assert layout.cut(np.asarray(added))["a"].std() == pytest.approx(4.0, rel=0.02)


def test_a_name_of_one_unit_passes_the_threshold_as_rarely_as_stated() -> None:
    """P(1 + N(0, σ²) > t) · reach = delta by definition of t."""
    found = protection(TABLE, scenario_with(privacy=privacy("record")))
    threshold = names_threshold(found, 30.0, 40)
    assert 40 * (1 - NormalDist(1, 30).cdf(threshold)) == pytest.approx(found.delta, rel=1e-6)


def shards(count: int, rows: int) -> list[Shard]:
    made = []
    for site in range(count):
        rng = np.random.default_rng(site)
        x = rng.normal(50, 10, rows)
        x[: rows // 10] = np.nan
        c = np.array(
            ["a" if r < 0.6 else "b" if r < 0.95 else f"rare{site}" for r in rng.random(rows)], object
        )
        made.append(Shard({"x": x, "c": c}, (rng.random(rows) < 0.3).astype(np.int32)))
    return made


def test_many_rows_show_through_the_noise_and_few_do_not() -> None:
    """Of 40,000 rows, mean, spread, median and missing share are near the truth at epsilon 1; the names of
    each site, 5 % of its rows, are not kept, and the same seed gives the same."""
    sections = {"preprocessing": {"min_count": 5, "min_sites": 2}}
    scenario = scenario_with(privacy=privacy("record"), **sections)
    held = shards(4, 10_000)
    total = total_of(held, TABLE, scenario)
    spec = fit_total(total, TABLE, scenario.preprocessing)
    assert spec.categorical[0].categories == ("a", "b")
    (x,) = spec.numeric
    assert x.shift == pytest.approx(50, abs=1)
    assert x.scale == pytest.approx(10, abs=1.5)
    assert x.fill == pytest.approx(50, rel=0.11)  # bins are within 10 %
    assert x.indicator
    assert total.numeric["x"].missing / total.rows == pytest.approx(0.1, abs=0.02)
    assert total_of(held, TABLE, scenario) == total
    assert (
        total_of(held, TABLE, scenario_with(privacy=privacy("record", statistics_epsilon=1.1), **sections))
        != total
    )
    few = [Shard({k: v[:50] for k, v in s.columns.items()}, s.labels[:50]) for s in held]
    with pytest.raises(DataError, match=r"noise that privacy\.statistics_epsilon"):
        total_of(few, TABLE, scenario)


def test_noise_for_clients_needs_many_of_them() -> None:
    """Each client is 1 in a histogram, whatever its rows: 400 show their mean at epsilon 8, and 4 nothing."""
    scenario = scenario_with(privacy=privacy("client", statistics_epsilon=8.0))
    total = total_of(shards(400, 40), NUMBERS_ONLY, scenario)
    assert total.numeric["x"].moments.mean == pytest.approx(50, abs=5)
    with pytest.raises(DataError, match=r"noise that privacy\.statistics_epsilon"):
        total_of(shards(4, 40), NUMBERS_ONLY, scenario)


NUMBERS_ONLY = Schema((Column("x", "numeric"),), "binary", ("no", "yes"), "y")


def test_every_block_has_a_part_of_the_noise_where_it_can_be_moved() -> None:
    image = Schema((Column("i", "image", (2, 2, 1)),), "multiclass", ("a", "b", "c"), "y")
    for unit, moved in (("record", {"rows", "classes"}), ("client", {"rows", "classes", "pixels"})):
        layout = SumsPlan.of(image, scenario_with(privacy=privacy(unit))).numbers()
        assert {b.name for b in layout.blocks if layout.stddev(b.name) > 0} == moved


def test_under_secure_aggregation_clients_add_the_noise_that_protects_clients_too() -> None:
    assert not protection(TABLE, scenario_with(privacy=privacy("client"))).at_client
    assert protection(TABLE, scenario_with(privacy=privacy("client"), secure={"aggregation": True})).at_client
    assert protection(TABLE, scenario_with(privacy=privacy("record"))).at_client
