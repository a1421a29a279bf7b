"""What messages carry, and the gate at the client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.record_size import content_bytes
from shoal.common.weights import is_finite, record_to_weights, weights_to_record

WEIGHTS = weights_to_record([np.zeros((2, 3), np.float32), np.zeros(3, np.float32)])
METRICS = MetricRecord({"num-examples": 7, "seconds": 0.5})


def test_weights_round_trip_bitwise() -> None:
    weights = [np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32), np.array(3.0)]
    back = record_to_weights(weights_to_record(weights))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(weights, back, strict=True))


@pytest.mark.parametrize("kind", [table.TRAIN.name, table.POOLED.name])
def test_weights_may_leave_in_answer_to_training(kind: str) -> None:
    records.check_reply(kind, RecordDict({"arrays": WEIGHTS, "metrics": METRICS}), WEIGHTS)


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        ("evaluate", {"arrays": WEIGHTS}, 'the record "arrays"'),
        ("train.local", {"arrays": WEIGHTS}, 'the record "arrays"'),
        ("train", {"arrays": ArrayRecord([np.zeros((100, 4))])}, "not shaped"),
        ("train", {"rows": ArrayRecord([np.zeros(3)])}, 'the record "rows"'),
        ("train", {"config": ConfigRecord({"note": "a patient"})}, 'the record "config"'),
        ("train", {"metrics": MetricRecord({"num-examples": 1, "age": 41})}, "the metrics age"),
        ("evaluate", {"metrics": MetricRecord({"loss": [0.1, 0.2]})}, "single numbers only"),
        ("train", {"statistics": ConfigRecord({"a": "b"})}, 'the record "statistics"'),
        ("query.rows", {"metrics": METRICS}, "may not be answered"),
    ],
)
def test_the_gate_refuses_everything_else(kind: str, content: dict[str, Any], says: str) -> None:
    with pytest.raises(DisclosureError, match=says) as caught:
        records.check_reply(kind, RecordDict(content), WEIGHTS)
    assert "41" not in str(caught.value)
    assert "a patient" not in str(caught.value)


def test_finite_looks_at_every_array() -> None:
    assert is_finite(WEIGHTS)
    for bad in (np.nan, np.inf):
        assert not is_finite(ArrayRecord([np.zeros(2), np.array([0.0, bad])]))
    assert is_finite(ArrayRecord([np.array([1, 2])]))  # whole numbers always are


def test_content_bytes_counts_every_record() -> None:
    content = RecordDict({"arrays": WEIGHTS, "metrics": METRICS})
    # 9 float32 numbers are 36 bytes, two metrics 16; keys and numpy's headers come on top
    assert content_bytes(content) > 36 + 16
    assert content_bytes(content) == WEIGHTS.count_bytes() + METRICS.count_bytes()
