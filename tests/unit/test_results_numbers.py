from __future__ import annotations

import math

import pytest

from shoal.common.config import TrainingConfig
from shoal.common.events import Interval, SiteRow
from shoal.common.metrics import default_metrics, monitored
from shoal.common.schema import Task
from shoal.simulations.results import monitored_metric, over_sites
from shoal.simulations.results import text as shown


def site(client: int, value: float, metric: str = "auc") -> SiteRow:
    return SiteRow(client, f"site {client}", 10, 5, 2, {"federated": {metric: Interval(value, value, value)}})


def test_over_sites_by_hand() -> None:
    # 0.5, 0.6, ..., 1.6: mean 1.05; population std of 12 equal steps h = h * sqrt((12² - 1) / 12)
    # = 0.1 * sqrt(143 / 12); the worst tenth of 12 sites are ceil(1.2) = 2: (0.5 + 0.6) / 2.
    rows = [site(i, 0.5 + i / 10) for i in range(12)]
    found = over_sites(rows, "federated", "auc")
    assert found is not None
    assert found.sites == 12
    assert found.mean == pytest.approx(1.05)
    assert (found.worst, found.worst_site) == (0.5, "site 0")
    assert found.worst_tenth == pytest.approx(0.55)
    assert found.std == pytest.approx(0.1 * math.sqrt(143 / 12))
    assert found.spread == pytest.approx(1.1)


def test_the_worst_loss_is_the_largest() -> None:
    found = over_sites([site(0, 0.2, "loss"), site(1, 0.9, "loss")], "federated", "loss")
    assert found is not None
    assert (found.worst, found.worst_site) == (0.9, "site 1")


def test_sites_without_a_value_do_not_count() -> None:
    found = over_sites([site(0, math.nan), site(1, 0.7)], "federated", "auc")
    assert found is not None
    assert (found.sites, found.mean) == (1, 0.7)
    assert over_sites([site(0, math.nan)], "federated", "auc") is None
    assert over_sites([site(0, 0.7)], "local", "auc") is None


@pytest.mark.parametrize(
    ("monitor", "names", "expected"),
    [
        ("auto", ["loss", "accuracy", "auc"], "auc"),
        ("auto", ["loss", "f1", "accuracy"], "accuracy"),
        ("auto", ["loss", "mse", "mae"], "mae"),
        ("f1", ["loss", "f1", "accuracy"], "f1"),
        ("f1", ["loss"], "loss"),  # not measured: fall back
        ("auto", ["their own"], "their own"),
        ("auto", [], None),
    ],
)
def test_monitored_metric(monitor: str, names: list[str], expected: str | None) -> None:
    assert monitored_metric(TrainingConfig(monitor=monitor), names) == expected


def test_auto_monitors_the_first_metric_that_the_scenario_names() -> None:
    training = TrainingConfig(metrics=("loss", "auc"))
    assert monitored_metric(training, ["auc", "loss"]) == monitored(training, "binary") == "loss"


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_auto_is_what_the_server_monitors(task: Task) -> None:
    training = TrainingConfig()
    assert monitored_metric(training, default_metrics(task)) == monitored(training, task)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.93149, "0.931"),
        (0.0, "0.000"),
        (-0.25, "−0.250"),
        (0.00012, "0.00012"),
        (123.456, "123"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (None, "–"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    assert shown.number(value) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (21_500, "21.5 kB"),
        (999_600, "1.0 MB"),
        (3e15, "3000 TB"),
    ],
)
def test_size(amount: float, expected: str) -> None:
    assert shown.size(amount) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.421, "0.42 s"),
        (4.26, "4.3 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (7500, "2 h 05 min"),
        (math.inf, "–"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert shown.duration(seconds) == expected


def test_interval() -> None:
    assert shown.interval(Interval(0.9, 0.8, 1.0)) == "0.900 [0.800, 1.000]"
    assert shown.interval(Interval(0.9, math.nan, math.nan)) == "0.900"
    assert shown.interval(None) == shown.interval(Interval(math.nan, 0, 1)) == "–"
    assert shown.signed(0.1) == "+0.100"
    assert shown.signed(0.0) == "0.000"
