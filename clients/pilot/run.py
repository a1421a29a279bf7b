"""Takes part in a federation as one site, from its own rows."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import grpc
from flwr.app import ArrayRecord, RecordDict

from shoal.clients.algorithms import keeps_states
from shoal.clients.app import make_client_app
from shoal.clients.pilot.consent import ANY_TERMS, Terms, statement
from shoal.clients.pilot.grpc_client import Runs, TransportClient
from shoal.clients.pilot.site_data import SitePopulation
from shoal.clients.pilot.states import SiteStates, StatefulWorker
from shoal.clients.runtime import ClientRuntime
from shoal.clients.worker import Answer, Job, Worker, WorkerContext
from shoal.common.audit.log import FIRST, AuditLog, MessageEntry
from shoal.common.config import Scenario
from shoal.common.environment import worker_environment
from shoal.common.errors import ConfigError, DisclosureError
from shoal.common.keras_loading import load_keras
from shoal.common.messages.names import ARRAYS
from shoal.common.privacy.charges import Account, Charges
from shoal.common.schema import Schema, Shard
from shoal.common.wire import wire_pb2 as wire
from shoal.common.wire.agreement import agreement

_log = logging.getLogger("shoal.transport")
_RUN_ID = 1  # Flower's id of a run; a process serves one


class _ShowsModel:
    """Logs the model that the server has sent, before it first runs here."""

    def __init__(self, worker: Runs) -> None:
        self._worker = worker
        self._shown = False

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Run as the worker does."""
        arrays = content.get(ARRAYS)
        if isinstance(arrays, ArrayRecord) and not self._shown:
            self._shown = True
            shapes = [tuple(array.shape) for array in arrays.values()]
            listed = ", ".join("×".join(map(str, shape)) or "1" for shape in shapes)
            _log.info("the server's model has %s weights: %s", f"{sum(map(math.prod, shapes)):,}", listed)
        return self._worker.run(content, jobs)


@contextmanager
def _site_states(folder: Path) -> Iterator[SiteStates]:
    states = SiteStates.in_folder(folder)
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
    patience_s: float = 600.0,
    terms: Terms = ANY_TERMS,
    agree: Callable[[str], bool] = lambda statement: True,
) -> str:
    """Take part as one site until the server says goodbye, and return the root of its audit log.

    Args:
        scenario: this site's own copy; schema: that all sites have agreed on; shard: this site's rows.
        address: of the server; credentials: of this site; name: where no certificate says it.
        log: file that gets an entry for each message that comes or leaves, as `AuditLog` writes it; beside
            it, NAME-privacy.jsonl has the rounds that were charged to this site's privacy budget, and
            NAME-states what the algorithm remembers of this site, where it remembers anything.
        patience_s: how long a server that cannot be reached is tried.
        terms: what this site refuses; agree: is given what the server asks and what will leave, before
            anything does, and says whether to take part.

    Raises:
        TransportError: the server refuses us or is not there.
        DisclosureError: the terms are not met, or `agree` said no.
        ConfigError: the server has another scenario or schema.
    """
    mine = agreement(scenario, schema)
    if "tensorflow" not in sys.modules:  # it reads the variables once, when it is imported
        os.environ.update(worker_environment(scenario.resources.threads_per_worker))
    load_keras()  # takes seconds: before the server waits for us
    logs: list[AuditLog] = []  # one, from the welcome on

    def make_worker(welcome: wire.Welcome) -> _ShowsModel:
        if welcome.agreement != mine:
            raise ConfigError(
                "the server has another scenario or schema than this site",
                hint="compare both files; only data.path, [resources] and [output] may differ",
            )
        terms.check(welcome.clients)
        if not agree(statement(scenario, schema, address, welcome.clients, shard.rows, terms)):
            raise DisclosureError("not approved: nothing has left this site")
        begin = {"side": "client", "client": welcome.client, "clients": welcome.clients, "server": address}
        begin |= {"tls": credentials is not None, "scenario": scenario.name, "agreement": mine}
        begin |= {"run_id": welcome.run_id}
        if logs:
            logs[0].begin(begin)
        else:
            logs.append(AuditLog(log, begin))
        account = Account(Charges(log.with_name(f"{log.stem}-privacy.jsonl")), welcome.run_id)
        population = SitePopulation(schema, shard, welcome.client, welcome.clients)
        federation = WorkerContext(_RUN_ID, {}, welcome.clients, show_errors=False)
        worker = Worker(
            lambda: make_client_app(ClientRuntime(scenario, population, "system", account)), federation
        )
        if not keeps_states(scenario):
            return _ShowsModel(worker)
        folder = log.with_name(f"{log.stem}-states") / welcome.run_id
        return _ShowsModel(StatefulWorker(worker, closing.enter_context(_site_states(folder))))

    def note(passed: MessageEntry) -> None:
        logs[0].note(passed)
        if passed.direction == "sent":  # on the disk before it leaves
            logs[0].sync()

    with ExitStack() as closing:
        try:
            TransportClient(
                address,
                credentials,
                make_worker,
                version=version("shoal"),
                name=name,
                on_passed=note,
                refuses=terms.refuses,
                compression=scenario.resources.compression,
                patience_s=patience_s,
            ).run()
        finally:
            for one in logs:
                one.close()
    return logs[0].root if logs else FIRST
