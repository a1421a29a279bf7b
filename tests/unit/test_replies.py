"""What a reply may hold: the gate that each side holds it to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shoal.common.errors import DisclosureError, NonFiniteError
from shoal.common.messages.names import ARRAYS, CLIENTS, EXTRA, METRICS_RECORD
from shoal.common.messages.replies import client_rows, client_table, metric_record, numbers_of
from shoal.common.messages.table import MESSAGES, POOLED, TRAIN, message_type
from shoal.common.weights import weights_to_record

UPDATE = weights_to_record([np.zeros((2, 3), np.float32), np.zeros(3, np.float32)])
METRICS = MetricRecord({"num-examples": 7, "seconds": 0.5})


def check(kind: str, content: dict[str, Any]) -> None:
    message_type(kind).reply.check(kind, RecordDict(content))


@pytest.mark.parametrize("kind", [TRAIN.name, POOLED.name])
def test_an_update_may_leave_in_answer_to_training(kind: str) -> None:
    check(kind, {ARRAYS: UPDATE, EXTRA: UPDATE, METRICS_RECORD: METRICS})


def test_updates_may_leave_in_answer_to_nothing_else() -> None:
    kinds = {name for name, kind in MESSAGES.items() if kind.reply.update}
    assert kinds == {TRAIN.name, POOLED.name}


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        ("evaluate", {ARRAYS: UPDATE}, 'the record "arrays"'),
        ("train.local", {ARRAYS: UPDATE}, 'the record "arrays"'),
        ("evaluate.test", {EXTRA: UPDATE}, 'the record "extra"'),
        ("train", {"client-state": UPDATE}, 'the record "client-state"'),
        ("train", {"server-state": UPDATE}, 'the record "server-state"'),
        ("train", {"rows": ArrayRecord([np.zeros(3)])}, 'the record "rows"'),
        ("train", {"config": ConfigRecord({"note": "a patient"})}, 'the record "config"'),
        ("train", {ARRAYS: ConfigRecord({"note": "a patient"})}, 'the record "arrays"'),
        ("train", {METRICS_RECORD: ConfigRecord({"note": "a patient"})}, 'the record "metrics"'),
        ("train", {METRICS_RECORD: MetricRecord({"num-examples": 1, "age": 41})}, "the metrics age"),
        ("evaluate", {METRICS_RECORD: MetricRecord({"loss": [0.1, 0.2]})}, "single numbers only"),
        ("train", {"statistics": ConfigRecord({"a": "b"})}, 'the record "statistics"'),
        ("train", {CLIENTS: ConfigRecord({"client": [0], "age": [41]})}, "table of clients .* age"),
        ("evaluate.test", {CLIENTS: ConfigRecord({"client": [0]})}, 'the record "clients"'),
        ("query.sums", {METRICS_RECORD: MetricRecord({"num-examples": 41})}, "the metrics num-examples"),
        ("query.rows", {METRICS_RECORD: METRICS}, "unknown message type"),
    ],
)
def test_the_gate_refuses_everything_else(kind: str, content: dict[str, Any], says: str) -> None:
    with pytest.raises(DisclosureError, match=says) as caught:
        check(kind, content)
    assert "41" not in str(caught.value)
    assert "a patient" not in str(caught.value)


def require(content: dict[str, Any]) -> None:
    TRAIN.reply.require(RecordDict(content))


def test_what_the_server_needs_is_there_and_finite() -> None:
    require({ARRAYS: UPDATE, METRICS_RECORD: METRICS})
    with pytest.raises(DisclosureError, match="no update"):
        require({METRICS_RECORD: METRICS})
    for bad in (math.nan, math.inf):
        for name in (ARRAYS, EXTRA):
            arrays = {ARRAYS: UPDATE, name: weights_to_record([np.array([1.0, bad])])}
            with pytest.raises(NonFiniteError, match="NaN or infinity"):
                require({**arrays, METRICS_RECORD: METRICS})


@pytest.mark.parametrize("number", [None, math.nan, math.inf, -1])
def test_a_count_that_nothing_can_be_weighted_by_is_refused(number: float | None) -> None:
    numbers = {} if number is None else {"num-examples": number}
    with pytest.raises(DisclosureError, match="num-examples"):
        require({ARRAYS: UPDATE, METRICS_RECORD: MetricRecord(numbers)})  # type: ignore[arg-type]


def test_a_table_of_clients_round_trips() -> None:
    rows = [{"num-examples": 3.0, "train_loss": 0.5}, {"num-examples": 4.0, "train_loss": 0.25}]
    assert client_rows(client_table([2, 5], rows)) == {2: rows[0], 5: rows[1]}


def test_numbers_of_a_reply_are_its_metrics() -> None:
    assert numbers_of(RecordDict({METRICS_RECORD: metric_record({"seconds": 2})})) == {"seconds": 2.0}
    assert numbers_of(RecordDict()) == {}
