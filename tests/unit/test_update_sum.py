"""Replies to a round become one sum: in the same order whoever sent what, and only of what is an update."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from shoal.common.config.sections import UpdateConfig
from shoal.common.errors import DisclosureError
from shoal.common.flower_shim import identify_process, number_message
from shoal.common.messages.names import (
    ARRAYS,
    CLIENTS,
    EXAMPLES,
    EXTRA,
    METRICS_RECORD,
    TRAIN_LOSS,
    WEIGHT,
    WITHIN,
)
from shoal.common.messages.replies import client_table, metric_record
from shoal.common.messages.table import TRAIN
from shoal.common.origin import Origin
from shoal.common.sites import Sites
from shoal.common.update.codecs import CODECS, Codec, codec_of
from shoal.common.update.mean import UpdateMean
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.server.update_sum import UpdateReader

SITES = Sites(6, "site {}".format)
START = weights_to_record([np.array([1.0, 2.0], np.float32), np.array([[7.0]], np.float32)])


@pytest.fixture(autouse=True, scope="module")
def _process() -> None:
    identify_process(1)


def message(client: int, content: RecordDict) -> Message:
    asked = Message(RecordDict(), SITES.node(client), TRAIN.name)
    number_message(asked)
    return Message(content, reply_to=asked)


def reply(client: int, update: list[float], **numbers: float) -> Message:
    arrays = [np.array(update, np.float32), np.zeros((1, 1), np.float32)]
    told = {EXAMPLES: 10.0, TRAIN_LOSS: 1.0, **numbers}
    return message(
        client, RecordDict({ARRAYS: weights_to_record(arrays), METRICS_RECORD: metric_record(told)})
    )


def codec(compress: str) -> Codec:
    return codec_of(UpdateConfig.model_validate({"compress": compress, "top_share": 0.4}))


def reader(compress: str = "none") -> UpdateReader:
    return UpdateReader(codec(compress), SITES)


def test_updates_are_added_with_their_weights() -> None:
    """1.5 · (2, 4) + 0.5 · (1, -1) = (3.5, 5.5); the loss is (1.5 · 1 + 0.5 · 3) / 2."""
    replies = [
        reply(0, [2, 4], **{WEIGHT: 1.5, WITHIN: 0.0}),
        reply(3, [1, -1], **{WEIGHT: 0.5, WITHIN: -0.5, TRAIN_LOSS: 3.0}),
    ]
    found = reader().total(replies, START, [0, 3], 1)
    np.testing.assert_allclose(found.updates[0], [3.5, 5.5])
    assert (found.weight, found.within, found.examples) == (2.0, -0.5, 20)
    assert found.loss == pytest.approx((1.5 * 1 + 0.5 * 3) / 2)
    assert list(found.extra) == []


def test_without_a_weight_of_their_own_updates_count_by_examples() -> None:
    found = reader().total([reply(0, [1, 0], **{EXAMPLES: 30.0}), reply(1, [0, 1])], START, [0, 1], 1)
    np.testing.assert_allclose(found.updates[0], [30, 10])


def test_nobody_s_sum_is_zero() -> None:
    found = reader().total([], START, [], 1)
    assert all((u == 0).all() for u in found.updates)
    assert (found.weight, found.examples) == (0, 0)


def test_what_the_algorithm_sends_beside_is_averaged_with_the_same_weights() -> None:
    """(10 · 4 + 30 · 0) / 40 = 1."""
    replies = [reply(0, [0, 0]), reply(1, [0, 0], **{EXAMPLES: 30.0})]
    for one, value in zip(replies, (4.0, 0.0), strict=True):
        one.content[EXTRA] = weights_to_record([np.array([value], np.float32)])
    (found,) = reader().total(replies, START, [0, 1], 1).extra
    assert found.tolist() == [1.0]


def updates(client: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(client)
    return [rng.normal(size=2).astype(np.float32), rng.normal(size=(1, 1)).astype(np.float32)]


def alone(client: int, compress: str) -> Message:
    encoded = codec(compress).encode(updates(client), lambda: Origin(1, 1, client).rng("compression"))
    numbers = metric_record({EXAMPLES: 3.0 + client, TRAIN_LOSS: 0.1 * client})
    return message(client, RecordDict({ARRAYS: weights_to_record(encoded), METRICS_RECORD: numbers}))


def together(clients: list[int], compress: str) -> Message:
    """Return what a worker answers for a group: the mean of what the server would have decoded."""
    mean, like = UpdateMean(), record_to_weights(START)
    for client in clients:
        record = alone(client, compress).content.array_records[ARRAYS]
        mean.add(codec(compress).decode(record_to_weights(record), like), 3.0 + client)
    examples = [3.0 + client for client in clients]
    loss = sum(0.1 * c * e for c, e in zip(clients, examples, strict=True)) / sum(examples)
    rows = [{EXAMPLES: e} for e in examples]
    content = RecordDict(
        {
            ARRAYS: weights_to_record(mean.mean()),
            METRICS_RECORD: metric_record({EXAMPLES: sum(examples), TRAIN_LOSS: loss}),
            CLIENTS: client_table(clients, rows),
        }
    )
    return message(clients[0], content)


@pytest.mark.parametrize("compress", CODECS)
def test_a_sum_has_the_same_bits_whoever_adds_up_a_group(compress: str) -> None:
    """Six clients in groups of three: each by itself, or one reply a group, in any order."""
    apart = [alone(client, compress) for client in (5, 0, 3, 1, 4, 2)]
    mixed = [together([3, 4, 5], compress), *(alone(client, compress) for client in (2, 1, 0))]
    groups = [together([3, 4, 5], compress), together([0, 1, 2], compress)]
    first, *others = (
        reader(compress).total(replies, START, range(6), 3).updates for replies in (apart, mixed, groups)
    )
    expected = sum((3.0 + c) * updates(c)[0].astype(np.float64) for c in range(6))
    if compress == "none":
        np.testing.assert_allclose(first[0], expected, rtol=1e-5)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_stock_strategy_sees_the_weights_that_an_update_leads_to() -> None:
    sent = reply(2, [0.5, -1.0])
    found = reader().as_weights(sent, START)
    assert record_to_weights(found.content.array_records[ARRAYS])[0].tolist() == [1.5, 1.0]
    assert found.metadata.src_node_id == SITES.node(2)
    assert found.content[METRICS_RECORD] == sent.content[METRICS_RECORD]


@pytest.mark.parametrize("compress", CODECS)
def test_arrays_that_are_no_update_of_this_model_are_refused(compress: str) -> None:
    good = alone(0, compress).content
    reader(compress).check(good, START)
    arrays = record_to_weights(good.array_records[ARRAYS])
    wrong: Mapping[str, list[NDArray[np.generic]]] = {
        "one more": [*arrays, arrays[0]],
        "one fewer": arrays[:-1],
        "another shape": [arrays[0].reshape(2, 1), *arrays[1:]],
        "another type": [a.astype(np.float64) for a in arrays],
    }
    for bad in wrong.values():
        with pytest.raises(DisclosureError, match="not an update of the model"):
            reader(compress).check(RecordDict({ARRAYS: weights_to_record(bad)}), START)


def test_a_group_s_mean_travels_decoded_and_is_held_to_the_model_s_own_shapes() -> None:
    reader("int8").check(together([0, 1], "int8").content, START)
    encoded = alone(0, "int8").content
    encoded[CLIENTS] = client_table([0, 1], [{EXAMPLES: 1.0}, {EXAMPLES: 1.0}])
    with pytest.raises(DisclosureError, match="not an update of the model"):
        reader("int8").check(encoded, START)


def test_what_is_sent_beside_an_update_is_what_the_algorithm_asks_for() -> None:
    """Of other shapes, or of one client alone, it could not be added up."""
    like = [np.zeros(3, np.float32), np.zeros((), np.float32)]
    good = reply(0, [0.0, 0.0]).content
    reader().check(good, START)
    good[EXTRA] = weights_to_record([np.ones(3, np.float32), np.array(1.0, np.float32)])
    reader().check(good, START, like)
    for bad in ([], [like[0]], [like[0].astype(np.float64), like[1]], [np.zeros(4, np.float32), like[1]]):
        good[EXTRA] = weights_to_record(bad)
        with pytest.raises(DisclosureError, match="with the update"):
            reader().check(good, START, like)
    del good[EXTRA]
    with pytest.raises(DisclosureError, match="with the update"):
        reader().check(good, START, like)
