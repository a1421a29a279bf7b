"""Nothing but aggregates and updates leaves a client: every message of a run of each scenario."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord
from watching import Seen, watching

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.messages import table
from shoal.common.messages.schema import parse
from shoal.common.messages.table import MessageType
from shoal.common.preprocessing.statistics_records import unpack
from shoal.common.schema import Population
from shoal.common.weights import same_shapes
from shoal.server.app import Hooks
from shoal.simulations import datasets
from shoal.simulations.run import coordinate

SCENARIOS = [
    "medical-thyroid",
    "finance-lending",
    "digits",
    "wearables",
    "linear",
    "sentiment-zh",
    "sentiment-zh-lstm",
]


def run_watched(scenario: Scenario, population: Population) -> Seen:
    seen: Seen = []
    coordinate(scenario, population, Hooks([], lambda fitted: None), lambda outcome: None, watching(seen))
    return seen


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_message_carries_what_it_may_and_nothing_else(name: str) -> None:
    scenario = load_scenario(
        name,
        [
            "resources.backend=serial",
            "training.rounds=1",
            "training.local_steps=2",
            "output.compare=true",
            "output.bootstrap=5",
            "strategy.evaluate_clients=3",
        ],
    )
    population = datasets.load_population(scenario)
    seen = run_watched(scenario, population)
    kinds = {request.metadata.message_type for request, _ in seen}
    assert kinds >= {"query.statistics", "train", "evaluate", "evaluate.test", "train.local"}
    words = forbidden_texts(population)
    for request, reply in seen:
        kind = table.MESSAGES[request.metadata.message_type]
        parse(kind.request, request.content)  # nothing is asked that the type does not know
        assert_only_what_the_type_says(kind, request, reply)
        assert_no_text_of(words, reply)
        if kind is table.STATISTICS:
            assert_aggregates_only(reply, scenario.preprocessing.min_count)


def assert_only_what_the_type_says(kind: MessageType, request: Message, reply: Message) -> None:
    for name, record in reply.content.items():
        if isinstance(record, MetricRecord):
            assert set(record) <= kind.reply.metrics
            assert all(isinstance(value, int | float) for value in record.values())
        elif kind is table.STATISTICS:
            assert name.startswith("statistics.")
        elif kind is table.AUTOTUNE_TYPE:
            assert (name, set(record)) == ("autotune", {"reason"})
        elif name == "clients":  # the table of a reply for several: the same metrics, and who
            assert kind in (table.TRAIN, table.EVALUATE)
            assert set(record) <= kind.reply.metrics | {"client"}
        else:
            assert kind in (table.TRAIN, table.POOLED)
            assert name == "arrays"  # no algorithm here sends anything beside the update
            assert same_shapes(record, request.content.array_records["arrays"])  # type: ignore[arg-type]


def forbidden_texts(population: Population) -> set[str]:
    """Texts that would tell of a row: whole reviews, and categories that one row of the first has."""
    shard = population.shard(0)
    found: set[str] = set()
    for column in population.schema.columns:
        values = shard.columns[column.name]
        if column.kind == "text":
            found |= {text for text in values.tolist() if len(text) > 12}
        if column.kind == "categorical":
            names, counts = np.unique([v for v in values.tolist() if v], return_counts=True)
            found |= {str(n) for n, count in zip(names, counts, strict=True) if count < 5 and len(n) > 1}
    return found


def assert_no_text_of(words: set[str], reply: Message) -> None:
    if reply.metadata.dst_node_id != 2:  # the node of client 0, whose texts these are
        return
    for record in reply.content.values():
        if isinstance(record, ConfigRecord):
            told = json.dumps(
                [v.decode() if isinstance(v, bytes) else v for v in record.values()], ensure_ascii=False
            )
            assert not [word for word in words if f'"{word}"' in told]


def assert_aggregates_only(reply: Message, min_count: int) -> None:
    """`check` is the disclosure rule on the numbers themselves; it raises if one is broken."""
    statistics = unpack(reply.content)
    statistics.check(min_count)
    for found in [*statistics.tokens.values(), *(c.counts for c in statistics.categorical.values())]:
        assert all(count >= min_count for count in found.counts)
    for column in statistics.numeric.values():
        assert all(count >= min_count for count in column.sketch.counts)
