"""Averages the clients' metrics: a mean, weighted by examples, over the clients that have each metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shoal.common.messages.names import CLIENTS
from shoal.common.messages.replies import client_rows


def mean_over_clients(replies: Sequence[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Return the weighted mean of each metric over the replies in which it is a finite number.

    In Flower's own mean, one NaN (the AUC at a site with a single class) makes the result NaN; here the mean
    is over the sites that have the metric. A metric that no site has is NaN. A reply for several clients
    counts for all of them.

    Args:
        replies: each with one MetricRecord; a reply for several clients also has their table.
        weighted_by_key: the metric used as the weight, such as "num-examples".
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for record in (table for reply in replies for table in _tables(reply)):
        weight = _number(record[weighted_by_key])
        for name, value in record.items():
            if name == weighted_by_key or not isinstance(value, int | float):
                continue
            sums.setdefault(name, 0.0)
            weights.setdefault(name, 0.0)
            if math.isfinite(value):
                sums[name] += weight * value
                weights[name] += weight
    return MetricRecord({k: sums[k] / weights[k] if weights[k] else math.nan for k in sums})


def _tables(reply: RecordDict) -> Iterable[Mapping[str, object]]:
    table = reply.get(CLIENTS)
    if isinstance(table, ConfigRecord):
        return client_rows(table).values()
    return [next(iter(reply.metric_records.values()))]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
