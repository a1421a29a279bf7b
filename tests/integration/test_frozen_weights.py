"""Weights that no training changes: they stay as they are, and travel only to a client that lacks them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from watching import run_watched

from shoal.clients.runtime import ClientRuntime
from shoal.clients.worker import WorkerContext
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import FrozenWeightsError, MessageError
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages.names import ARRAYS, FROZEN
from shoal.common.messages.requests import EvaluateRequest
from shoal.common.models import build
from shoal.common.schema import InputSpec
from shoal.common.sites import Sites
from shoal.common.update.spec import WeightSpec
from shoal.common.weights import weights_to_record
from shoal.server.app import Hooks
from shoal.server.cohort_grid import CohortGrid
from shoal.server.frozen import FrozenWeightsGrid
from shoal.simulations import datasets
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor
from shoal.simulations.export import load_trained
from shoal.simulations.run import coordinate

CLIENTS = 4
PRIVATE = ("privacy.unit=client", "privacy.noise_multiplier=1.0", "privacy.clip_norm=1.0")


def half_frozen(spec: InputSpec, classes: int) -> keras.Model:
    """A frozen layer of random features under a trained one."""
    features = keras.layers.Dense(5, activation="tanh", bias_initializer="glorot_uniform", trainable=False)
    return keras.Sequential([keras.Input(spec.shape), features, keras.layers.Dense(1)])


def scenario(*settings: str) -> Scenario:
    given = (
        f"model.name={__name__}:half_frozen",
        f"partition.clients={CLIENTS}",
        "training.rounds=2",
        "training.local_steps=3",
        "training.learning_rate=0.05",
        "output.bootstrap=0",
        "resources.backend=serial",
    )
    return load_scenario("linear", [*given, *settings])


@pytest.mark.parametrize("settings", [(), PRIVATE], ids=["plain", "private"])
def test_frozen_weights_neither_change_nor_travel(settings: tuple[str, ...]) -> None:
    config = scenario(*settings)
    outcome, seen = run_watched(config)
    schema, spec = datasets.load_population(config).schema, outcome.fitted.spec
    initial = build(config.model, spec.input_spec, schema.num_classes, seed=config.seed).get_weights()
    trained = load_trained(config, schema, spec, outcome.progress.arrays).get_weights()
    assert WeightSpec.of(
        build(config.model, spec.input_spec, schema.num_classes, seed=config.seed)
    ).frozen == [0, 1]
    for k in (0, 1):
        np.testing.assert_array_equal(trained[k], initial[k])
    for k in (2, 3):
        assert (trained[k] != initial[k]).all()
    for request, reply in seen:
        assert FROZEN not in request.content
        for content in (request.content, reply.content):
            arrays = content.get(ARRAYS)
            assert arrays is None or [a.shape for a in arrays.values()] == [(5, 1), (1,)]


# -- a client that lacks them -------------------------------------------------------------------


class Counted(CohortGrid):
    """Counts what is sent to each node, with and without frozen weights."""

    sent: list[tuple[int, bool]]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        self.sent += [(m.metadata.dst_node_id, FROZEN in m.content) for m in asked]
        return super().send_and_receive(asked, timeout=timeout)


def forgetful(lacking: set[int]) -> ClientApp:
    """Clients that answer only with frozen weights, of which some have none of their own at first."""
    app, lacks = ClientApp(), set(lacking)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        if FROZEN in message.content:
            lacks.discard(client)
        if client in lacks:
            raise FrozenWeightsError("none of that hash")
        if message.content.config_records["config"]["fail"] == client:
            raise FrozenWeightsError("none of that hash, whatever is sent")
        return Message(RecordDict({"metrics": MetricRecord({"n": client})}), reply_to=message)

    return app


def ask(app: ClientApp, times: int = 1, fail: int = -1) -> tuple[list[list[Message]], list[tuple[int, bool]]]:
    identify_process(1)
    sites = Sites(CLIENTS, str)
    executor = SerialExecutor(lambda: app, WorkerContext(1, {}, CLIENTS, show_errors=True))
    counted = Counted(EngineGrid(executor, sites, make_run(1)), sites.node_ids)
    counted.sent = []
    grid = FrozenWeightsGrid(counted, weights_to_record([np.arange(3.0)]))
    content = RecordDict({ARRAYS: ArrayRecord([np.zeros(1)]), "config": ConfigRecord({"fail": fail})})
    found = []
    for _ in range(times):
        messages = [Message(content, node, "train") for node in sites.node_ids]
        found.append(list(grid.send_and_receive(messages, timeout=60)))
    return found, counted.sent


def test_only_a_client_that_lacks_them_is_asked_again_and_once() -> None:
    (first, second), sent = ask(forgetful({1}), times=2)
    nodes = [2, 3, 4, 5]
    assert sent == [*((n, False) for n in nodes), (3, True), *((n, False) for n in nodes)]
    for replies in (first, second):
        assert [r.metadata.src_node_id for r in replies] == nodes
        assert [r.content["metrics"]["n"] for r in replies] == [0, 1, 2, 3]


def test_one_that_cannot_use_them_either_is_not_asked_a_third_time() -> None:
    (replies,), sent = ask(forgetful(set()), fail=2)
    assert sent[CLIENTS:] == [(4, True)]
    assert [r.metadata.src_node_id for r in replies if r.has_error()] == [4]


def test_a_client_with_all_of_them_gets_none() -> None:
    _, sent = ask(forgetful(set()))
    assert not any(frozen for _, frozen in sent)


# -- at the client ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> str:
    found: list[str] = []
    config = scenario("training.rounds=1")
    hooks = Hooks([], lambda fitted: found.append(fitted.spec.to_json()))
    coordinate(config, datasets.load_population(config), hooks, lambda outcome: None)
    return found[0]


def runtime(fitted: str, seed: int = 1) -> ClientRuntime:
    config = scenario(f"seed={seed}")
    found = ClientRuntime(config, datasets.load_population(config))
    found.use_preprocessing(fitted)
    return found


def request(fitted: str, of: ClientRuntime, **changes: Any) -> EvaluateRequest:
    """Return a request of a server whose model is that of a runtime."""
    model = of.trainer.model.get_weights()
    given = {"frozen_hash": of.weight_spec.frozen_hash(model), **changes}
    shared = weights_to_record(of.weight_spec.take_shared(model))
    return EvaluateRequest(
        weights=shared,
        preprocessing=fitted,
        round_number=1,
        execution_mode="sequential",
        reduce=False,
        **given,
    )


def test_a_client_uses_its_own_where_they_are_the_server_s(fitted: str) -> None:
    own = runtime(fitted)
    found = own.weights(request(fitted, own))
    for a, b in zip(found, own.trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_client_of_another_seed_asks_for_them_once_and_keeps_them(fitted: str) -> None:
    server, client = runtime(fitted), runtime(fitted, seed=2)
    frozen = server.trainer.model.get_weights()[:2]
    with pytest.raises(FrozenWeightsError):
        client.weights(request(fitted, server))
    sent = client.weights(request(fitted, server, frozen=weights_to_record(frozen)))
    kept = client.weights(request(fitted, server))
    for found in (sent, kept):
        for a, b in zip(found[:2], frozen, strict=True):
            np.testing.assert_array_equal(a, b)


def test_weights_that_are_not_those_of_the_hash_are_refused(fitted: str) -> None:
    server, client = runtime(fitted), runtime(fitted, seed=2)
    forged = weights_to_record([w + 1 for w in server.trainer.model.get_weights()[:2]])
    with pytest.raises(MessageError, match="not match its hash"):
        client.weights(request(fitted, server, frozen=forged))
    with pytest.raises(MessageError, match="disagree on which weights are frozen"):
        client.weights(request(fitted, server, frozen_hash=None))
