"""The payload of a message in bytes, computed without serialising it."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shoal.common.arrays import count_bytes


def content_bytes(content: RecordDict) -> int:
    """Return the payload of a message in bytes, without its envelope."""
    return sum(record_bytes(record) for record in content.values())


def record_bytes(record: ArrayRecord | MetricRecord | ConfigRecord) -> int:
    """Return the payload of one record in bytes."""
    if isinstance(record, ArrayRecord):
        return count_bytes(record)
    return _config_bytes(record) if isinstance(record, ConfigRecord) else record.count_bytes()


def _config_bytes(record: ConfigRecord) -> int:
    """Count as Flower does, whose own function fails on an empty list (1.41)."""
    total = 0
    for key, value in record.items():
        values = value if isinstance(value, list) else [value]
        total += len(key.encode()) + sum(_value_bytes(v) for v in values)
    return total


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    return 1 if isinstance(value, bool) else 8
