"""Takes part in a federation as one site, with its own rows."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import cast

import grpc
from flwr.app import ArrayRecord, RecordDict

from shoal.clients.algorithms import keeps_states
from shoal.clients.app import make_client_app
from shoal.clients.kernel import PopulationAccount
from shoal.clients.kernel.answers import Answers
from shoal.clients.kernel.gate import Gate
from shoal.clients.mechanisms import planned_uses
from shoal.clients.pilot.consent import ANY_TERMS, Terms, statement
from shoal.clients.pilot.grpc_client import TransportClient
from shoal.clients.pilot.site_data import SitePopulation
from shoal.clients.pilot.states import SiteStates, StatefulWorker, rounds_repeated
from shoal.clients.runtime import ClientRuntime
from shoal.clients.worker import Answer, Job, Runs, Worker, WorkerContext
from shoal.common.audit.log import FIRST, AuditLog, MessageEntry
from shoal.common.config import Scenario
from shoal.common.environment import worker_environment
from shoal.common.errors import ConfigError, DisclosureError
from shoal.common.keras_loading import load_keras
from shoal.common.messages.names import ARRAYS
from shoal.common.privacy.charges import Charges
from shoal.common.schema import Schema, Shard
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.agreement import agreement

_log = logging.getLogger("shoal.transport")
_RUN_ID = 1  # Flower's id of a run; a process serves one


class _ShowsModel:
    """Logs the shapes of the server's model before it first runs here."""

    def __init__(self, worker: Runs) -> None:
        self._worker = worker
        self._shown = False

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Run like the worker."""
        arrays = content.get(ARRAYS)
        if isinstance(arrays, ArrayRecord) and not self._shown:
            self._shown = True
            shapes = [tuple(array.shape) for array in arrays.values()]
            listed = ", ".join("×".join(map(str, shape)) or "1" for shape in shapes)
            _log.info("the server's model has %s weights: %s", f"{sum(map(math.prod, shapes)):,}", listed)
        return self._worker.run(content, jobs)


@contextmanager
def _site_states(folder: Path, checkpoint_every: int) -> Iterator[SiteStates]:
    states = SiteStates.in_folder(folder, checkpoint_every)
    try:
        yield states
    finally:
        states.close()


def run_client(
    scenario: Scenario,
    schema: Schema,
    shard: Shard,
    address: str,
    credentials: grpc.ChannelCredentials | None,
    *,
    name: str = "",
    log: Path,
    account: Path,
    lifetime_epsilon: float = math.inf,
    patience_s: float = 600.0,
    terms: Terms = ANY_TERMS,
    agree: Callable[[str], bool] = lambda statement: True,
) -> str:
    """Take part as one site until the server ends it, and return the root of the site's audit log.

    Args:
        scenario: this site's own copy; schema: agreed on by all sites; shard: this site's rows.
        address: of the server; credentials: of this site; name: of this site, if it has no certificate.
        log: path of the `AuditLog`, with an entry for each message received or sent; next to it, NAME-answers
            holds the last answers, which a repeated question gets again, and NAME-states what the algorithm
            remembers of this site, if it remembers anything.
        account: file of the `PopulationAccount` of the rows; lifetime_epsilon: its limit over all runs.
        patience_s: how long to keep trying an unreachable server.
        terms: this site's; agree: called with the statement of what the server asks for and the site will
            send, before anything is sent; returns whether to take part.

    Raises:
        TransportError: the server refuses this site or is unreachable.
        BudgetError: the run would exceed the lifetime limit of the account.
        DisclosureError: the terms are not met, or `agree` returned False.
        ConfigError: the server has a different scenario or schema.
    """
    mine = agreement(scenario, schema)
    if "tensorflow" not in sys.modules:  # TensorFlow reads the variables only when it is imported
        os.environ.update(worker_environment(scenario.resources.threads_per_worker))
    load_keras()  # takes seconds, so it comes before the server waits for this site
    logs: list[AuditLog] = []  # has one log after the welcome

    def make_worker(welcome: wire.Welcome) -> _ShowsModel:
        if welcome.agreement != mine:
            raise ConfigError(
                "the server and this site have different scenarios or schemas",
                hint="compare both files; only data.path, [resources] and [output] may differ",
            )
        terms.check(welcome.clients)
        spent = PopulationAccount(Charges(account), welcome.run_id, lifetime_epsilon)
        population = SitePopulation(schema, shard, welcome.client, welcome.clients)
        runtime = ClientRuntime(scenario, population, "system", spent)
        after = spent.require_run(planned_uses(runtime, welcome.client))
        asked = statement(scenario, schema, address, welcome.clients, shard.rows, terms, (spent.spent, after))
        if not agree(asked):
            raise DisclosureError("not approved by the operator: this site has sent nothing in this run")
        begin = {"side": "client", "client": welcome.client, "clients": welcome.clients, "server": address}
        begin |= {"tls": credentials is not None, "scenario": scenario.name, "agreement": mine}
        begin |= {"run_id": welcome.run_id}
        if logs:
            logs[0].begin(begin)
        else:
            logs.append(AuditLog(log, begin))
        federation = WorkerContext(_RUN_ID, {}, welcome.clients, show_errors=False)
        worker = Worker(lambda: make_client_app(runtime), federation)
        runs, every = cast(Runs, worker), scenario.output.checkpoint_every
        if keeps_states(scenario):
            folder = log.with_name(f"{log.stem}-states") / welcome.run_id
            runs = StatefulWorker(worker, closing.enter_context(_site_states(folder, every)))
        answers = Answers(log.with_name(f"{log.stem}-answers") / welcome.run_id, rounds_repeated(every))
        return _ShowsModel(Gate(runs, scenario, spent, answers))

    def note(entry: MessageEntry) -> None:
        logs[0].note(entry)
        if entry.direction == "sent":  # on disk before the message is sent
            logs[0].sync()

    with ExitStack() as closing:
        try:
            TransportClient(
                address,
                credentials,
                make_worker,
                version=version("shoal"),
                name=name,
                on_message=note,
                refuses=terms.refuses,
                compression=scenario.resources.compression,
                patience_s=patience_s,
            ).run()
        finally:
            for one in logs:
                one.close()
    return logs[0].root if logs else FIRST
