"""The payload of a message, in bytes."""

from __future__ import annotations

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shoal.common.record_size import content_bytes, record_bytes
from shoal.common.weights import weights_to_record

WEIGHTS = weights_to_record([np.zeros((2, 3), np.float32), np.zeros(3, np.float32)])
METRICS = MetricRecord({"num-examples": 7, "seconds": 0.5})


def test_content_bytes_counts_every_record() -> None:
    content = RecordDict({"arrays": WEIGHTS, "metrics": METRICS})
    # 9 float32 numbers are 36 bytes, two metrics 16; keys and numpy's headers come on top
    assert content_bytes(content) > 36 + 16
    assert content_bytes(content) == WEIGHTS.count_bytes() + METRICS.count_bytes()


def test_config_values_count_as_they_are() -> None:
    """Keys of one letter each; 3 bytes of UTF-8 in "é!", 4 bytes, a flag of 1, a number of 8, two of 16."""
    record = ConfigRecord({"a": "é!", "b": b"1234", "c": True, "d": 7, "e": [0.5, 1.5]})
    assert record_bytes(record) == 5 + 3 + 4 + 1 + 8 + 16
    assert record_bytes(ConfigRecord({"a": []})) == 1  # Flower's own count fails here
