"""A strategy with clients that reply what a test says, over real messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from shoal.clients.worker import WorkerContext
from shoal.common.config import StrategyConfig
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.sites import Sites
from shoal.common.weights import weights_to_record
from shoal.server.cohort_grid import CohortGrid
from shoal.server.exchange import ask
from shoal.server.strategies import make
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor

LEARNING_RATE = 0.1
Weights = list[np.ndarray]


class Federated:
    """A strategy with clients that answer what the test says."""

    def __init__(self, strategy: Strategy, clients: int) -> None:
        identify_process(1)
        self.strategy = strategy
        self.sites = Sites(clients, str)
        self.updates: Sequence[Weights] = []
        self.examples: Sequence[int] = []
        self.losses: Sequence[float] = []
        self.configs: list[dict[str, Any]] = []
        executor = SerialExecutor(self._app, WorkerContext(1, {}, clients, show_errors=True))
        self.grid = EngineGrid(executor, self.sites, make_run(1))

    def _app(self) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            client = int(context.node_config["partition-id"])
            self.configs.append(dict(message.content.config_records["config"]))
            numbers = {"num-examples": self.examples[client], "train_loss": self.losses[client]}
            arrays = weights_to_record(self.updates[client])
            reply = {"arrays": arrays, "metrics": MetricRecord(numbers)}
            return Message(RecordDict(reply), reply_to=message)

        return app

    def round(
        self,
        sent: ArrayRecord,
        updates: Sequence[Weights],
        examples: Sequence[int] | None = None,
        losses: Sequence[float] | None = None,
        number: int = 1,
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Run one round as `server.rounds` does, and return what the strategy gave."""
        self.updates = updates
        self.examples = examples or [10 + i for i in range(len(updates))]
        self.losses = losses or [1.0 + i for i in range(len(updates))]
        view = CohortGrid(self.grid, list(self.sites.node_ids))
        messages = list(self.strategy.configure_train(number, sent.copy(), ConfigRecord(), view))
        assert sorted(m.metadata.dst_node_id for m in messages) == list(self.sites.node_ids)
        exchange = ask(self.grid, self.sites, messages, "train", number, timeout_s=60)
        assert not [row.error for row in exchange.rows if row.error]
        arrays, metrics = self.strategy.aggregate_train(number, exchange.accepted)
        assert arrays is not None
        assert metrics is not None
        return arrays, metrics


def made(name: str, clients: int, args: Mapping[str, Any] | None = None) -> Federated:
    config = StrategyConfig(name=name, args=dict(args or {}))
    return Federated(make(config, clients, LEARNING_RATE), clients)


def scalars(name: str, start: float, values: Sequence[float], **rest: Any) -> tuple[float, Federated]:
    """One round of a model with one weight; `rest` holds arguments of the strategy and of the round."""
    of_round = {k: rest.pop(k) for k in ("examples", "losses") if k in rest}
    federated = made(name, len(values), rest)
    sent = ArrayRecord([np.array([start], np.float32)])
    arrays, _ = federated.round(sent, [[np.array([v], np.float32)] for v in values], **of_round)
    return float(arrays.to_numpy_ndarrays()[0][0]), federated


def some_weights(rng: np.random.Generator) -> Weights:
    """A matrix, a vector and a number without dimensions, as models have them."""
    shapes: list[tuple[int, ...]] = [(3, 2), (2,), ()]
    return [np.asarray(rng.normal(size=shape), np.float32) for shape in shapes]


def same(a: Weights, b: Weights, **tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 1e-6, "atol": 1e-6}))
