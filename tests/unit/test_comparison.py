from __future__ import annotations

import pytest

from shoal.common.events import Interval, Model, SiteRow
from shoal.simulations.comparison import compare, paired_test


def site(client: int, local: float, federated: float, half_width: float) -> SiteRow:
    tests: dict[Model, dict[str, Interval]] = {
        "local": {"auc": Interval(local, local - half_width, local + half_width)},
        "federated": {"auc": Interval(federated, federated - half_width, federated + half_width)},
    }
    return SiteRow(client, f"S{client}", 100, 30, 10, tests)


def test_the_paired_test_has_the_exact_p_value() -> None:
    # Ranks of |gain| 1..6; only the smallest is negative, so W- = 1. Of the 2**6 sign patterns, those with
    # W- <= 1 are the one without a negative sign and the one where rank 1 is negative: p = 2 * 2 / 64.
    assert paired_test([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(4 / 64)


def test_fewer_than_six_differences_cannot_be_tested() -> None:
    assert paired_test([0.1, 0.2, 0.3, 0.4, 0.5, 0.0]) is None


def test_one_clear_site_of_many_may_be_chance() -> None:
    # 1 of 100 pairs of intervals apart is what chance gives (0.6 %); 1 of 10 is not. Others alternate.
    for sites, helps in ((100, False), (10, True)):
        rows = [site(i, 0.6, 0.6 + (0.01 if i % 2 else -0.01), 0.05) for i in range(1, sites)]
        found = compare([site(0, 0.6, 0.9, 0.05), *rows], "local", "auc")
        assert found is not None
        assert len(found.clearly_better) == 1
        assert found.helps is helps
        assert not found.hurts
