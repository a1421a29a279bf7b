"""One real site of a federation, and requests that a server could send to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict

from shoal.clients.app import make_client_app
from shoal.clients.kernel import PopulationAccount
from shoal.clients.pilot.site_data import SitePopulation
from shoal.clients.preprocessing.statistics import local_statistics
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.flower_shim import identify_process, number_message
from shoal.common.messages.requests import EvaluateRequest, TrainRequest
from shoal.common.messages.schema import to_content
from shoal.common.messages.table import MessageType
from shoal.common.schema import Column, Schema, Shard
from shoal.common.weights import weights_to_record
from shoal.server.preprocessing.fit import fit

SITES = 5
SCHEMA = Schema((Column("age", "numeric"), Column("dose", "numeric")), "binary", ("no", "yes"), "ill")


def rows(count: int = 120, seed: int = 1) -> Shard:
    rng = np.random.default_rng(seed)
    age, dose = rng.normal(50, 12, count), rng.normal(size=count)
    return Shard({"age": age, "dose": dose}, (age + 9 * dose > 50).astype(np.int32))


def scenario(*settings: str) -> Scenario:
    usual = (
        "model.args={hidden=[4]}",
        "training.rounds=3",
        "training.batch_size=20",
        "output.bootstrap=0",
        "resources.backend=serial",
    )
    return load_scenario("medical-thyroid", [*usual, *settings])


class Site:
    """Site 0 of five: its runtime and app, which answers requests as they would arrive."""

    def __init__(
        self, config: Scenario, account: PopulationAccount | None = None, shard: Shard | None = None
    ) -> None:
        identify_process(1)
        self.config = config
        population = SitePopulation(SCHEMA, rows() if shard is None else shard, 0, SITES)
        self.runtime = ClientRuntime(config, population, "system", account)
        self.app = make_client_app(self.runtime)
        of_all = [local_statistics(rows(seed=k), SCHEMA, config.preprocessing) for k in range(SITES)]
        self.preprocessing = fit(of_all, SCHEMA, config.preprocessing).to_json()
        self.runtime.use_preprocessing(self.preprocessing)
        self.weights = weights_to_record(self.runtime.trainer.model.get_weights())
        self.state = RecordDict()

    def ask(self, kind: MessageType, request: Any) -> RecordDict:
        """Return the content of the site's reply to a request."""
        content = request if isinstance(request, RecordDict) else to_content(request)
        message = Message(content, 2, kind.name)
        number_message(message)
        context = Context(1, 2, {"partition-id": 0, "num-partitions": SITES}, self.state, {})
        reply = self.app(message, context)
        self.state = context.state
        return reply.content

    def train_request(self, **changed: Any) -> TrainRequest:
        honest = TrainRequest(
            weights=self.weights,
            preprocessing=self.preprocessing,
            round_number=1,
            learning_rate=0.5,
            execution_mode="sequential",
            reduce=False,
        )
        return replace(honest, **changed)

    def evaluate_request(self, **changed: Any) -> EvaluateRequest:
        honest = EvaluateRequest(
            weights=self.weights,
            preprocessing=self.preprocessing,
            round_number=1,
            execution_mode="sequential",
            reduce=False,
        )
        return replace(honest, **changed)
