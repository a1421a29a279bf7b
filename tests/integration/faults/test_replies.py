"""Replies that are lost, repeated, or not what they should be: the result is right, or the error clear.

A Grid between server and clients changes what client 3 answers. That client then counts as failed, and the
run has the bits of one in which it has honestly failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import NonFiniteError, TooFewRepliesError
from shoal.common.events import ClientRow, RoundRow
from shoal.common.flower_shim import client_error, number_message
from shoal.server.app import Hooks, Outcome
from shoal.server.cohort_grid import CohortGrid
from shoal.simulations import datasets
from shoal.simulations.run import coordinate

BAD = 3  # the client whose replies are changed
NODE = 2 + BAD
Fault = Callable[[Message], "list[Message]"]


def scenario(*more: str) -> Scenario:
    given = ["training.rounds=3", "partition.clients=5", "output.bootstrap=10", "server.min_success=0.8"]
    return load_scenario("linear", [*given, *more])


class FaultyGrid(CohortGrid):
    """Changes replies of one client to one type of message, for as many of them as it is told."""

    def __init__(self, grid: Grid, fault: Fault, kind: str, times: int) -> None:
        super().__init__(grid, grid.get_node_ids())  # type: ignore[arg-type]
        self.fault = fault
        self.kind = kind
        self.left = times

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        found: list[Message] = []
        for reply in super().send_and_receive(messages, timeout=timeout):
            if reply.metadata.src_node_id == NODE and reply.metadata.message_type == self.kind and self.left:
                self.left -= 1
                found += self.fault(reply)
            else:
                found.append(reply)
        return found


class Told:
    """Keeps what an observer is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.rounds: list[RoundRow] = []
        self.clients: list[ClientRow] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)

    def on_round(self, row: RoundRow, clients: Any) -> None:
        self.rounds.append(row)
        self.clients += clients

    def on_sites(self, rows: Any) -> None:
        """Not looked at."""


def run(config: Scenario, fault: Fault, kind: str = "train", times: int = 99) -> tuple[list[Any], Told]:
    """Return the final weights and what was told."""
    told, outcomes = Told(), list[Outcome]()
    population = datasets.load_population(config)
    hooks = Hooks([told], lambda fitted: None)
    coordinate(config, population, hooks, outcomes.append, lambda grid: FaultyGrid(grid, fault, kind, times))
    return outcomes[0].progress.arrays.to_numpy_ndarrays(), told


def answer(reply: Message, content: RecordDict) -> list[Message]:
    """Return a reply with another content in its place; its metadata stay."""
    request = Message(RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type)
    number_message(request)
    changed = Message(content, reply_to=request)
    number_message(changed)
    return [changed]


def failed(reply: Message) -> list[Message]:
    request = Message(RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type)
    number_message(request)
    honest = Message(client_error("ValueError: honest"), reply_to=request)
    number_message(honest)
    return [honest]


def weights(change: Callable[[list[np.ndarray[Any, Any]]], list[np.ndarray[Any, Any]]]) -> Fault:
    def fault(reply: Message) -> list[Message]:
        record = ArrayRecord(change(reply.content.array_records["arrays"].to_numpy_ndarrays()))
        return answer(reply, RecordDict({**reply.content, "arrays": record}))

    return fault


def numbers(**values: float | list[float]) -> Fault:
    def fault(reply: Message) -> list[Message]:
        changed = {**reply.content["metrics"], **{k.replace("_", "-"): v for k, v in values.items()}}
        return answer(reply, RecordDict({**reply.content, "metrics": MetricRecord(changed)}))  # type: ignore[arg-type]

    return fault


def without(name: str) -> Fault:
    return lambda reply: answer(reply, RecordDict({k: v for k, v in reply.content.items() if k != name}))


def having(name: str, record: Any) -> Fault:
    return lambda reply: answer(reply, RecordDict({**reply.content, name: record}))


NO_UPDATE = "not an update of the model that was sent"
UNUSABLE: dict[str, tuple[Fault, str]] = {
    "lost": (lambda reply: [], "no reply before the deadline"),
    "an error": (failed, "honest"),
    "NaN": (weights(lambda w: [w[0] * np.float32(np.nan), *w[1:]]), "NonFiniteError"),
    "infinity": (weights(lambda w: [*w[:-1], w[-1] + np.float32(np.inf)]), "NonFiniteError"),
    "other shape": (weights(lambda w: [w[0].T, *w[1:], w[0]]), NO_UPDATE),
    "too few arrays": (weights(lambda w: w[:1]), NO_UPDATE),
    "oversize": (weights(lambda w: [np.zeros(1 << 20, np.float32), *w[1:]]), NO_UPDATE),
    "other dtype": (weights(lambda w: [a.astype(np.float64) for a in w]), NO_UPDATE),
    "integers": (weights(lambda w: [a.astype(np.int32) for a in w]), NO_UPDATE),
    "no update": (without("arrays"), "contains no update"),
    "no metrics": (without("metrics"), '"num-examples"'),
    "empty": (lambda reply: answer(reply, RecordDict()), "contains no update"),
    "NaN examples": (numbers(num_examples=float("nan")), '"num-examples"'),
    "negative examples": (numbers(num_examples=-80), '"num-examples"'),
    "infinite examples": (numbers(num_examples=float("inf")), '"num-examples"'),
    "a list of examples": (numbers(num_examples=[1.0, 2.0]), "single numbers only"),
    "a metric beyond the list": (numbers(salary=1.0), "may not contain the metrics salary"),
    "a record beyond the list": (
        having("rows", ArrayRecord([np.ones(3)])),
        'may not contain the record "rows"',
    ),
    "arrays that no algorithm asked for": (having("extra", ArrayRecord([np.ones(3)])), "with the update"),
    "config for metrics": (having("metrics", ConfigRecord({"num-examples": 80})), '"metrics"'),
    "for others too": (having("clients", ConfigRecord({"client": [0, 3]})), "answers for clients"),
    "for another unevenly": (
        having("clients", ConfigRecord({"client": [3], "seconds": [1, 2]})),
        "for some client",
    ),
    "for nobody": (having("clients", ConfigRecord({"client": "all"})), "no valid list of clients"),
    "for one beyond": (having("clients", ConfigRecord({"client": [3, 10**9]})), "no valid list of clients"),
}


@pytest.fixture(scope="module")
def without_it() -> list[Any]:
    """The weights of a run in which client 3 has honestly failed in each round."""
    return run(scenario(), failed)[0]


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_update_is_named_and_left_out(name: str, without_it: list[Any]) -> None:
    fault, reason = UNUSABLE[name]
    found, told = run(scenario(), fault)
    for here, there in zip(found, without_it, strict=True):
        np.testing.assert_array_equal(here, there)
    errors = [row for row in told.clients if row.error]
    assert {(row.client, row.phase) for row in errors} == {(BAD, "train")}
    assert len(errors) == 3  # one a round
    assert all(reason in row.error for row in errors), errors[0].error
    assert [row.succeeded for row in told.rounds[1:]] == [4, 4, 4]


@pytest.mark.parametrize("name", ["lost", "NaN", "other shape", "no metrics"])
def test_too_few_answers_end_the_run_with_client_round_and_phase(name: str) -> None:
    fault, reason = UNUSABLE[name]
    with pytest.raises((TooFewRepliesError, NonFiniteError), match=r"round 1, training: 4 of 5") as caught:
        run(scenario("server.min_success=1.0"), fault)
    assert reason in str(caught.value)
    assert f"client-{BAD}" in str(caught.value)


@pytest.mark.parametrize("kind", ["query.statistics", "train", "evaluate"])
@pytest.mark.parametrize("name", ["lost", "an error", "empty"])
def test_a_round_that_is_tried_again_has_the_bits_of_one_that_went_well(name: str, kind: str) -> None:
    """Two faults, two more tries; clients that had answered are not asked again."""
    fault, _ = UNUSABLE[name]
    config = scenario("server.min_success=1.0", "server.round_retries=2")
    expected, calm = run(config, fault, times=0)
    found, told = run(config, fault, kind, times=2)
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_array_equal(here, there)
    assert [row.metrics for row in told.rounds] == [row.metrics for row in calm.rounds]
    again = [text for text in told.texts if "again" in text]
    assert len(again) == 2
    assert all("asking 1 of 5 clients again" in text for text in again)


def test_a_third_fault_is_one_too_many_for_two_tries() -> None:
    fault, _ = UNUSABLE["lost"]
    with pytest.raises(TooFewRepliesError, match="round 1, training"):
        run(scenario("server.min_success=1.0", "server.round_retries=2"), fault, times=3)


def test_a_reply_twice_and_one_that_nobody_asked_for_change_nothing() -> None:
    def twice(reply: Message) -> list[Message]:
        stranger = Message(RecordDict(), 2 + 99, "train")
        number_message(stranger)
        other = Message(reply.content, reply_to=stranger)
        number_message(other)
        return [reply, reply, other]

    expected, _ = run(scenario(), lambda reply: [reply])
    found, told = run(scenario(), twice)
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_array_equal(here, there)
    assert not [row for row in told.clients if row.error]


STATISTICS_FAULTS: dict[str, tuple[Fault, str]] = {
    "empty": (lambda reply: answer(reply, RecordDict()), '"train-rows"'),
    "metrics alone": (
        lambda reply: answer(reply, RecordDict({"metrics": reply.content["metrics"]})),
        "DisclosureError",
    ),
    "weights": (having("arrays", ArrayRecord([np.ones(2)])), 'may not contain the record "arrays"'),
    "no rows": (numbers(train_rows=float("nan")), '"train-rows"'),
}


@pytest.mark.parametrize("name", STATISTICS_FAULTS)
def test_unusable_statistics_end_the_run_by_name_or_are_left_out(name: str) -> None:
    fault, reason = STATISTICS_FAULTS[name]
    with pytest.raises(TooFewRepliesError, match="preprocessing statistics: 4 of 5") as caught:
        run(scenario("server.min_success=1.0"), fault, "query.statistics")
    assert reason in str(caught.value)
    _, told = run(scenario(), fault, "query.statistics")
    assert len(told.rounds) == 4


def test_errors_of_users_code_say_client_round_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of the user's own that raises in one client: the others go on, and the text stays with it."""
    (tmp_path / "own_layers.py").write_text(
        "import keras\n"
        "def make(input_spec, num_classes, calls=[]):\n"
        "    class Trouble(keras.layers.Layer):\n"
        "        def call(self, inputs, training=False):\n"
        "            if training:\n"
        "                raise ValueError('secret row 42')\n"
        "            return inputs\n"
        "    inputs = keras.Input(input_spec.shape)\n"
        "    return keras.Model(inputs, keras.layers.Dense(1)(Trouble()(inputs)))\n"
    )
    monkeypatch.chdir(tmp_path)
    config = scenario(f"model.name={json.dumps('own_layers:make')}", "resources.execution_mode=sequential")
    with pytest.raises(TooFewRepliesError, match="round 1, training: 0 of 5") as caught:
        run(config, lambda reply: [reply])
    assert "client-0: ValueError" in str(caught.value)
