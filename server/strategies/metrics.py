"""How metrics of clients become one number: a mean by examples over the clients that have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flwr.app import MetricRecord, RecordDict


def mean_over_clients(replies: Sequence[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Return the weighted mean of each metric over the replies in which it is a finite number.

    Flower's own mean lets one NaN (the AUC at a site with one class) swallow all sites; here the
    weights are taken over the sites that have the metric. A metric that no site has is NaN.

    Args:
        replies: each with one MetricRecord.
        weighted_by_key: the metric that gives the weights, such as "num-examples".
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for reply in replies:
        record = next(iter(reply.metric_records.values()))
        weight = _number(record[weighted_by_key])
        for name, value in record.items():
            if name == weighted_by_key or isinstance(value, list):
                continue
            sums.setdefault(name, 0.0)
            weights.setdefault(name, 0.0)
            if math.isfinite(value):
                sums[name] += weight * value
                weights[name] += weight
    return MetricRecord({k: sums[k] / weights[k] if weights[k] else math.nan for k in sums})


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
