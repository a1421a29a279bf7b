"""Numbers by hand, what is not defined, and how long a bootstrap takes."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import numpy as np
import pytest

from shoal.common import metrics
from shoal.common.config import METRICS, TrainingConfig
from shoal.common.errors import ConfigError
from shoal.common.events import Interval
from shoal.common.schema import Task


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_auc_by_hand() -> None:
    """Positives score 0.5 and 0.9, others 0.1 and 0.5: of the 4 pairs 3 are in order and one ties."""
    assert metrics.auc(np.array([0, 1, 0, 1]), column(0.1, 0.5, 0.5, 0.9)) == pytest.approx((3 + 0.5) / 4)


def test_macro_f1_by_hand() -> None:
    """Labels 0 0 0 1, guessed 0 0 1 1: F1 of 0 is 2·2 / (3 + 2) = 0.8, of 1 is 2·1 / (1 + 2) = 2/3."""
    found = metrics.measure("binary", np.array([0, 0, 0, 1]), column(0.1, 0.2, 0.7, 0.9), ["f1"], None)
    assert found["f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_regression_by_hand() -> None:
    """Errors 1, -2, 3: mean absolute 6 / 3 = 2, mean squared (1 + 4 + 9) / 3."""
    found = metrics.measure("regression", np.zeros(3), column(1, -2, 3), ["mae", "mse", "loss"], 0.25)
    assert found == pytest.approx({"mae": 2.0, "mse": 14 / 3, "loss": 0.25})


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "name"),
    [
        ("binary", [1, 1], [[0.2], [0.9]], "auc"),  # one class
        ("binary", [], np.empty((0, 1)), "accuracy"),  # no rows
        ("binary", [0, 1], [[np.nan], [0.9]], "auc"),  # a prediction that is not finite
        ("multiclass", [0, 1], [[0.5, 0.3, 0.2]] * 2, "auc"),  # a metric of another task
        ("regression", [0.0, 1.0], [[np.inf], [0.0]], "mae"),
    ],
)
def test_what_is_not_defined_is_nan_without_a_warning(
    task: Task, labels: list[float], predictions: list[list[float]], name: str
) -> None:
    rows = np.array(labels, np.float32 if task == "regression" else np.int32), np.array(predictions)
    assert math.isnan(metrics.measure(task, *rows, [name], None)[name])
    found = metrics.bootstrap(task, *rows, [name], np.random.default_rng(0), 10)[name]
    assert all(math.isnan(v) for v in (found.value, found.low, found.high))


def test_loss_is_nan_unless_it_is_given() -> None:
    labels, predictions = np.array([0, 1]), column(0.2, 0.9)
    assert math.isnan(metrics.measure("binary", labels, predictions, ["loss"], None)["loss"])
    found = metrics.bootstrap("binary", labels, predictions, ["loss"], np.random.default_rng(0), 10)
    assert math.isnan(found["loss"].value)


def test_bootstrap_of_a_loss_by_row() -> None:
    labels, predictions = np.zeros(50), np.arange(50.0)[:, None]
    names, rng = ["loss", "mse"], np.random.default_rng(0)
    found = metrics.bootstrap(
        "regression", labels, predictions, names, rng, 100, lambda y, p: np.square(p[:, 0] - y)
    )
    assert found["loss"] == found["mse"]
    assert found["loss"].low < found["loss"].value < found["loss"].high


def test_resamples_of_one_class_are_left_out() -> None:
    """One positive of four rows is missing from (3/4)^4 = 32 % of resamples; the others tell."""
    labels, scores = np.array([0, 0, 0, 1]), column(0.1, 0.4, 0.6, 0.5)
    found = metrics.bootstrap("binary", labels, scores, ["auc"], np.random.default_rng(0), 200)["auc"]
    assert found.value == pytest.approx(2 / 3)
    assert 0 <= found.low < found.high <= 1


def test_no_resamples_give_no_limits() -> None:
    found = metrics.bootstrap(
        "binary", np.array([0, 1]), column(0.1, 0.9), ["auc"], np.random.default_rng(0), 0
    )
    assert found["auc"].value == 1.0
    assert math.isnan(found["auc"].low)


def test_interval_covers_what_theory_says() -> None:
    """Accuracy of 1,000 rows, 70 % right: the normal interval is 0.7 ± 1.96·√(0.7·0.3/1000) = ± 0.0284."""
    labels = np.ones(1000, np.int32)
    predictions = np.where(np.arange(1000) < 700, 0.9, 0.1)[:, None]
    found = metrics.bootstrap("binary", labels, predictions, ["accuracy"], np.random.default_rng(0), 2000)
    assert found["accuracy"].value == pytest.approx(0.7)
    assert found["accuracy"].low == pytest.approx(0.7 - 0.0284, abs=0.004)
    assert found["accuracy"].high == pytest.approx(0.7 + 0.0284, abs=0.004)


def test_blocks_of_resamples_do_not_change_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = np.array([0, 1] * 10), np.linspace(0, 1, 20)[:, None]
    whole = metrics.bootstrap("binary", labels, scores, ["auc"], np.random.default_rng(0), 50)
    monkeypatch.setattr(metrics, "_BLOCK", 7 * 20)  # 7 resamples at a time
    parts = metrics.bootstrap("binary", labels, scores, ["auc"], np.random.default_rng(0), 50)
    assert parts == whole


def test_bootstrap_of_auc_is_fast() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 1000), rng.random((1000, 1))
    started = time.perf_counter()
    metrics.bootstrap("binary", labels, scores, ["auc"], rng, 500)
    assert time.perf_counter() - started < 1.0  # measured: 0.03 s on two shared cores


def test_arguments_are_not_mutated() -> None:
    labels, scores = np.array([1, 0, 1]), column(0.3, 0.2, 0.1)
    copies = labels.copy(), scores.copy()
    metrics.bootstrap("binary", labels, scores, ["auc", "f1"], np.random.default_rng(0), 5)
    assert np.array_equal(labels, copies[0])
    assert np.array_equal(scores, copies[1])


@pytest.mark.parametrize("metric", METRICS)
def test_better_is_one_sided_and_never_nan(metric: str) -> None:
    assert metrics.is_better(metric, 0.6, 0.5) != metrics.is_better(metric, 0.5, 0.6)
    assert not metrics.is_better(metric, 0.5, 0.5)
    assert not metrics.is_better(metric, math.nan, 0.5)


def test_better_by_at_least_min_delta() -> None:
    assert metrics.is_better("auc", 0.8, 0.7, 0.05)
    assert not metrics.is_better("auc", 0.72, 0.7, 0.05)
    assert metrics.is_better("loss", 0.6, 0.7, 0.05)
    assert not metrics.is_better("loss", 0.68, 0.7, 0.05)


def test_monitored_is_one_that_is_measured() -> None:
    assert metrics.monitored(TrainingConfig(), "binary") == "auc"
    assert metrics.monitored(TrainingConfig(metrics=("f1", "auc")), "binary") == "f1"
    assert metrics.monitored(TrainingConfig(monitor="loss"), "binary") == "loss"
    with pytest.raises(ConfigError, match=r"training\.monitor: expected one of auc, got loss"):
        metrics.monitored(TrainingConfig(metrics=("auc",), monitor="loss"), "binary")


def test_metrics_need_no_scikit_learn() -> None:
    code = (
        "import sys, shoal.common.metrics; sys.exit('sklearn' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_resamples_that_all_agree_are_no_interval() -> None:
    # Four rows, all right: with accuracy p, all four are right with probability p^4, and 0.025 = p^4 at
    # p = 0.3976 (Clopper, Pearson). The AUC is 1 in all resamples too, which tells nothing about chance.
    labels, predictions = np.array([0, 0, 1, 1]), np.array([[0.1], [0.2], [0.8], [0.9]])
    rng = np.random.default_rng(1)
    found = metrics.bootstrap("binary", labels, predictions, ["accuracy", "auc"], rng, 200)
    assert found["accuracy"] == Interval(1.0, pytest.approx(0.3976, abs=1e-4), 1.0)
    assert found["auc"].value == 1.0
    assert math.isnan(found["auc"].low)
    assert math.isnan(found["auc"].high)
    wrong = metrics.bootstrap("binary", 1 - labels, predictions, ["accuracy"], rng, 200)
    assert wrong["accuracy"] == Interval(0.0, 0.0, pytest.approx(1 - 0.3976, abs=1e-4))
