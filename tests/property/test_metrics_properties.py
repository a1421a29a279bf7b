"""Our metrics equal scikit-learn's on any data; a bootstrap by counts equals one by rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from shoal.common.events import Interval
from shoal.common.metrics import auc, bootstrap, measure

# Few distinct scores, so that most examples hold ties.
tied = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])), min_size=1, max_size=60
)
spread = st.lists(
    st.tuples(st.integers(0, 1), st.floats(0, 1, width=32, allow_subnormal=False)), min_size=1, max_size=60
)


def arrays(rows: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = zip(*rows, strict=True)
    return np.array(labels, np.int32), np.array(scores, np.float32)[:, None]


@given(st.one_of(tied, spread))
def test_auc_equals_scikit_learn_with_ties(rows: list[tuple[int, float]]) -> None:
    labels, scores = arrays(rows)
    found = auc(labels, scores)
    if len(set(labels)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(labels, scores[:, 0]), abs=1e-12)


@given(tied)
def test_auc_of_turned_scores_is_the_complement(rows: list[tuple[int, float]]) -> None:
    labels, scores = arrays(rows)
    if len(set(labels)) == 2:
        assert auc(labels, scores) + auc(labels, -scores) == pytest.approx(1.0, abs=1e-12)


@given(spread)
def test_binary_f1_and_accuracy_equal_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, scores = arrays(rows)
    found = measure("binary", labels, scores, ("f1", "accuracy"), None)
    guessed = (scores[:, 0] > 0.5).astype(int)
    assert found["f1"] == pytest.approx(
        f1_score(labels, guessed, average="macro", zero_division=0), abs=1e-12
    )
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, guessed), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_multiclass_f1_equals_scikit_learn(rows: list[tuple[int, int]]) -> None:
    labels, guessed = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    found = measure("multiclass", labels, np.eye(5)[guessed], ("f1", "accuracy"), None)
    assert found["f1"] == pytest.approx(
        f1_score(labels, guessed, average="macro", zero_division=0), abs=1e-12
    )
    assert found["accuracy"] == pytest.approx((labels == guessed).mean(), abs=1e-12)


@settings(max_examples=30)
@given(tied, st.integers(0, 2**32 - 1))
def test_bootstrap_by_counts_equals_bootstrap_by_rows(rows: list[tuple[int, float]], seed: int) -> None:
    """A row drawn k times counts k times: so each draw must give what its copied rows give."""
    labels, scores = arrays(rows)
    names = ("auc", "f1", "accuracy")
    found = bootstrap("binary", labels, scores, names, np.random.default_rng(seed), 20)
    drawn = np.random.default_rng(seed).integers(len(labels), size=(20, len(labels)))
    each = [measure("binary", labels[r], scores[r], names, None) for r in drawn]
    for name in names:
        values = np.array([numbers[name] for numbers in each])
        values = values[~np.isnan(values)]
        if math.isnan(found[name].value) or not values.size:
            assert math.isnan(found[name].low)
            assert math.isnan(found[name].high)
        else:
            low, high = np.quantile(values, (0.025, 0.975))
            if high - low > 1e-12:
                assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-12)
            elif name == "accuracy" and found[name].value in (0, 1):
                assert found[name].high - found[name].low == pytest.approx(1 - 0.025 ** (1 / len(labels)))
            else:  # resamples that all agree say nothing about chance
                assert math.isnan(found[name].low)
                assert math.isnan(found[name].high)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=40))
def test_regression_metrics_are_means_of_errors(rows: list[tuple[float, float]]) -> None:
    labels, values = (np.array(column) for column in zip(*rows, strict=True))
    found = measure("regression", labels, values[:, None], ("mae", "mse"), None)
    assert found["mae"] == pytest.approx(np.abs(labels - values).mean(), rel=1e-9, abs=1e-9)
    assert found["mse"] == pytest.approx(np.square(labels - values).mean(), rel=1e-9, abs=1e-9)
    # Cauchy-Schwarz: the mean of absolute errors is at most the root of the mean of squared ones
    assert found["mae"] <= math.sqrt(found["mse"]) * (1 + 1e-9) + 1e-12


@settings(max_examples=30)
@given(spread, st.integers(0, 2**32 - 1))
def test_one_seed_gives_one_interval(rows: list[tuple[int, float]], seed: int) -> None:
    labels, scores = arrays(rows)

    def once() -> Interval:
        return bootstrap("binary", labels, scores, ["accuracy"], np.random.default_rng(seed), 25)["accuracy"]

    assert once() == once()
    assert 0 <= once().low <= once().high <= 1
