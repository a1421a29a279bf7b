"""Sessions of secure aggregation whose messages are kept, and whose replies can be lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from shoal.clients.app import register, secure_handlers
from shoal.clients.preprocessing.statistics import local_statistics
from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure import SecureClient
from shoal.clients.worker import WorkerContext
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.events import ClientRow, RoundRow
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages import table
from shoal.common.messages.names import CONFIG
from shoal.common.messages.requests import SecureVectorRequest, TrainRequest
from shoal.common.schema import Population
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.server.app import Hooks, Outcome
from shoal.server.cohort_grid import CohortGrid
from shoal.server.preprocessing.fit import fit
from shoal.server.secure.protocol import Task, secure_sum
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor
from shoal.simulations.run import coordinate

SETTINGS = (
    "resources.backend=serial",
    "training.rounds=1",
    "training.local_epochs=1",
    "output.bootstrap=0",
    "data.validation_fraction=0",
)
CLIENTS = 10


class LosingGrid(CohortGrid):
    """Passes everything on and keeps it, but loses replies: message type → clients whose reply is lost."""

    lost: dict[str, Sequence[int]]
    seen: list[tuple[Message, Message]]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = {m.metadata.dst_node_id: m for m in messages}
        replies = []
        for reply in super().send_and_receive(list(asked.values()), timeout=timeout):
            request = asked[reply.metadata.src_node_id]
            lost = self.lost.get(request.metadata.message_type, ())
            if reply.metadata.src_node_id - 2 not in lost:
                self.seen.append((request, reply))
                replies.append(reply)
        return replies


class Rounds:
    """Keeps what is told of rounds."""

    def __init__(self) -> None:
        self.rows: list[tuple[RoundRow, Sequence[ClientRow]]] = []

    def on_message(self, text: str) -> None:
        """Ignore."""

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.rows.append((row, clients))

    def on_sites(self, rows: object) -> None:
        """Ignore."""


def scenario_of(*settings: str) -> Scenario:
    return load_scenario("digits", [*SETTINGS, *settings])


def losing(lost: dict[str, Sequence[int]]) -> tuple[Callable[[CohortGrid], CohortGrid], list]:  # type: ignore[type-arg]
    seen: list[tuple[Message, Message]] = []

    def wrap(grid):  # type: ignore[no-untyped-def]
        found = LosingGrid(grid, grid.get_node_ids())
        found.lost, found.seen = lost, seen
        return found

    return wrap, seen


def run(
    scenario: Scenario, population: Population, lost: dict[str, Sequence[int]] | None = None
) -> tuple[Outcome, Rounds, list[tuple[Message, Message]]]:
    wrap, seen = losing(lost or {})
    rounds, outcomes = Rounds(), list[Outcome]()
    hooks = Hooks([rounds], lambda fitted: None)  # type: ignore[list-item]
    coordinate(scenario, population, hooks, outcomes.append, wrap)  # type: ignore[arg-type]
    return outcomes[0], rounds, seen


def updates_in_clear(seen: list[tuple[Message, Message]]) -> dict[int, np.ndarray]:
    """Return the update of each client in a run without secure aggregation, (numbers,)."""
    found = {}
    for request, reply in seen:
        if request.metadata.message_type == "train":
            update = record_to_weights(reply.content["arrays"])
            found[reply.metadata.src_node_id - 2] = np.concatenate(
                [u.reshape(-1).astype(np.float64) for u in update]
            )
    return found


def flat(outcome: Outcome) -> np.ndarray:
    arrays = record_to_weights(outcome.progress.arrays)
    return np.concatenate([w.reshape(-1) for w in arrays]).astype(np.float64)


def count_rows(runtime: ClientRuntime, client: int, request: SecureVectorRequest, clients: int) -> np.ndarray:
    """Return a client's numbers of rows by split, in place of statistics."""
    return np.array([shard.rows for shard in runtime.raw(client).values()])


def app_that_counts_rows(runtime: ClientRuntime) -> ClientApp:
    app = ClientApp()
    register(app, secure_handlers(SecureClient(runtime, vector=count_rows)))
    return app


def sum_rows(
    population: Population, lost: dict[str, Sequence[int]], kind: type[LosingGrid] = LosingGrid
) -> tuple[np.ndarray, list[tuple[Message, Message]]]:
    """Add up the rows of all clients, which needs no TensorFlow."""
    identify_process(1)
    scenario = scenario_of("secure.aggregation=true")
    sites = Sites(len(population), population.name)
    runtime = ClientRuntime(scenario, population)
    executor = SerialExecutor(
        lambda: app_that_counts_rows(runtime), WorkerContext(1, {}, sites.count, show_errors=True)
    )
    states: dict[int, RecordDict] = {}
    grid = kind(EngineGrid(executor, sites, make_run(1), contexts=states), sites.node_ids)
    grid.lost, grid.seen = lost, []
    content = RecordDict({CONFIG: ConfigRecord({"pass": "numbers"})})
    task = Task(table.SECURE_VECTOR.name, content, 3, "statistics", "rows")
    summed = secure_sum(grid, sites, scenario, range(sites.count), 0, task)
    kept = set(summed.survivors) - set(lost.get(table.SECURE_UNMASK.name, ()))
    assert all(not state for node, state in states.items() if node - 2 in kept), "secrets are left behind"
    return summed.total, grid.seen


def train_request(runtime: ClientRuntime, scenario: Scenario) -> TrainRequest:
    """Return what an ordinary round would send."""
    from shoal.common.models import build

    statistics = [
        local_statistics(runtime.raw(c)["train"], runtime.schema, scenario.preprocessing)
        for c in range(CLIENTS)
    ]
    spec = fit(statistics, runtime.schema, scenario.preprocessing)
    model = build(scenario.model, spec.input_spec, runtime.schema.num_classes, seed=scenario.seed)
    return TrainRequest(
        weights=weights_to_record(model.get_weights()),
        preprocessing=spec.to_json(),
        round_number=1,
        learning_rate=0.05,
        execution_mode="sequential",
        reduce=False,
        full_weight_rows=float(max(runtime.raw(c)["train"].rows for c in range(CLIENTS))),
    )
