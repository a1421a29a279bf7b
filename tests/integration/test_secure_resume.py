"""Real sites give one masked input to each dispatch: a killed server continues under another number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, RecordDict

from shoal.clients.app import make_client_app
from shoal.clients.kernel import PopulationAccount
from shoal.clients.kernel.answers import Answers
from shoal.clients.kernel.gate import Gate
from shoal.clients.runtime import ClientRuntime
from shoal.clients.worker import Job, Worker, WorkerContext
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages import table
from shoal.common.privacy.charges import Charges
from shoal.common.schema import Population
from shoal.common.sites import Sites
from shoal.server.app import Federation, Hooks, Outcome, make_server_app
from shoal.server.checkpoint import Checkpoints
from shoal.server.cohort_grid import CohortGrid
from shoal.simulations import datasets
from tests.helpers.secure_sessions import scenario_of

CLIENTS = 4
CONFIG = scenario_of("secure.aggregation=true", "training.rounds=3", f"partition.clients={CLIENTS}")


class KilledError(Exception):
    """The server is gone."""


class GatedSites(CohortGrid):
    """Reaches real sites, each with a gate, a process-wide state and files of its own, in this process."""

    def __init__(self, folder: Path, population: Population) -> None:
        super().__init__(None, [])  # type: ignore[arg-type]  # nothing is passed on
        self.sites = Sites(len(population), population.name)
        self.folder, self.population = folder, population
        self.states: dict[int, RecordDict] = {}
        self.gates = {client: self.gate(client) for client in range(len(population))}
        self.inputs: list[tuple[int, int]] = []  # (client, dispatch) of each masked update given
        self.kill_in = 0  # after the masked updates of this dispatch

    def gate(self, client: int) -> Gate:
        own = self.folder / str(client)
        own.mkdir()
        account = PopulationAccount(Charges(own / "account.jsonl"), "run")
        app = make_client_app(ClientRuntime(CONFIG, self.population, "system", account))
        worker = Worker(lambda: app, WorkerContext(1, {}, len(self.population), show_errors=True))
        return Gate(worker, CONFIG, account, Answers(own / "answers", 3))

    def get_node_ids(self) -> list[int]:
        return list(self.sites.node_ids)

    @property
    def run(self):  # type: ignore[no-untyped-def]
        return make_run(1)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies, number = [], 0
        for message in messages:
            client = self.sites.client(message.metadata.dst_node_id)
            kind = message.metadata.message_type
            job = Job(message.metadata.dst_node_id, client, kind, "", self.states.get(client))
            (answer,) = self.gates[client].run(message.content, [job])
            if answer.state is not None:
                self.states[client] = answer.state
            if answer.content is None:
                replies.append(Message(Error(0, answer.error), reply_to=message))
                continue
            replies.append(Message(answer.content, reply_to=message))
            if kind == table.SECURE_TRAIN.name:
                number = int(message.content.config_records["secure"]["round"])  # type: ignore[arg-type]
                self.inputs.append((client, number))
        if number and number == self.kill_in:
            raise KilledError
        return replies


def run(grid: GatedSites, folder: Path, said: list[str]) -> list[Outcome]:
    class Observer:
        def on_message(self, text: str) -> None:
            said.append(text)

        def on_round(self, row: object, clients: object) -> None: ...
        def on_sites(self, rows: object) -> None: ...

    outcomes: list[Outcome] = []
    federation = Federation(CONFIG, grid.population.schema, grid.sites, source="system")
    hooks = Hooks([Observer()], lambda fitted: None, checkpoints=Checkpoints(folder, CONFIG))  # type: ignore[list-item]
    app = make_server_app(federation, hooks, outcomes.append)
    app(grid, Context(1, 1, {}, RecordDict(), {}))
    return outcomes


def test_no_site_gives_two_inputs_to_one_dispatch_and_the_run_ends(tmp_path: Path) -> None:
    identify_process(1)
    grid, said = GatedSites(tmp_path, datasets.load_population(CONFIG)), list[str]()
    grid.kill_in = 2
    with pytest.raises(KilledError):
        run(grid, tmp_path / "checkpoints", said)
    assert {number for _, number in grid.inputs} == {1, 2}
    grid.kill_in = 0
    (outcome,) = run(grid, tmp_path / "checkpoints", said)
    assert "resumed after round 1" in said
    assert len(set(grid.inputs)) == len(grid.inputs) == 4 * CLIENTS
    assert {number for _, number in grid.inputs} == {1, 2, 3, 4}
    assert outcome.progress.round == 3
    assert outcome.progress.skipped == 1
