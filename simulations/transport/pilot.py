"""A federation whose clients are elsewhere: what the server's and each site's process run."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import grpc
from flwr.app import ArrayRecord, RecordDict

from shoal.clients.app import make_client_app
from shoal.clients.resident import Resident
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, DisclosureError, TransportError
from shoal.common.events import Observer
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.keras_loading import load_keras
from shoal.common.privacy.charges import Account, Charges
from shoal.common.records import ARRAYS
from shoal.common.schema import Schema, Shard
from shoal.server.sites import Sites
from shoal.simulations.datasets.site import SitePopulation
from shoal.simulations.engine.environment import worker_environment
from shoal.simulations.engine.worker import Answer, Federation, Job, Worker
from shoal.simulations.results import RunFolder
from shoal.simulations.results.audit_check import read_chain
from shoal.simulations.results.audit_log import AUDIT_LOG, FIRST, AuditLog, Passed
from shoal.simulations.run import serve
from shoal.simulations.transport import wire_pb2 as wire
from shoal.simulations.transport.client import TransportClient
from shoal.simulations.transport.consent import ANY_TERMS, Terms, statement
from shoal.simulations.transport.grid import TransportGrid
from shoal.simulations.transport.meter import serve_metrics
from shoal.simulations.transport.server import Policy, TransportServer

_RUN_ID = 1
_log = logging.getLogger("shoal.transport")


@dataclass(frozen=True, slots=True)
class Absent:
    """The clients as the server knows them: names and a schema, and never a row."""

    schema: Schema
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, client: int) -> str:
        """Return the name of a client."""
        return self.names[client]

    def rows(self, client: int) -> int:
        """Refuse."""
        raise TransportError("the rows of a pilot's clients are with them")

    def shard(self, client: int) -> Shard:
        """Refuse."""
        raise TransportError("the rows of a pilot's clients are with them")


def agreement(scenario: Scenario, schema: Schema) -> str:
    """Return a hash of what server and clients must have in common: all that decides a client's work."""
    common = scenario.model_dump(mode="json", exclude={"data": {"path"}, "resources": True, "output": True})
    text = json.dumps([common, json.loads(schema.to_json())], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def run_server(
    scenario: Scenario,
    schema: Schema,
    address: str,
    credentials: grpc.ServerCredentials | None,
    policy: Policy,
    *,
    wait_s: float,
    observers: Sequence[Observer] = (),
    resume: RunFolder | None = None,
    metrics: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Wait for the clients, run the scenario over them, and return the run folder.

    Args:
        scenario: the configuration; schema: that all sites have agreed on.
        address: "host:port" to listen on; credentials, policy: as for `TransportServer`.
        wait_s: seconds to wait for all clients before beginning with those that are there.
        observers: as for `run_scenario`; resume: a run to go on with; say: is told of the waiting.
        metrics: "host:port" that answers Prometheus; "" for none.

    Raises:
        TransportError: the address cannot be had, or no client came.
    """
    run_id = _run_id(resume)
    common = agreement(scenario, schema)
    server = TransportServer(address, credentials, policy, version("shoal"), common, run_id)
    try:
        identify_process(_RUN_ID)
        if metrics:
            serve_metrics(server.meter, metrics)
        say(f"listening on port {server.port} for {len(policy.names)} clients")
        there = server.wait_for(len(policy.names), wait_s)
        if not there:
            raise TransportError(
                f"no client came in {wait_s:g} s",
                hint="do they dial this address, with certificates of this CA?",
            )
        say(f"{len(there)} of {len(policy.names)} clients are there")
        population = Absent(schema, policy.names)
        about = {"tls": credentials is not None, "run_id": run_id}

        def over(sites: Sites, log: AuditLog) -> TransportGrid:
            return TransportGrid(server, sites, make_run(_RUN_ID), scenario.resources.compression, log)

        return serve(scenario, population, over, observers, resume, about=about)
    finally:
        server.close()


def _run_id(resume: RunFolder | None) -> str:
    """Return the id of a run to go on with, or a new one."""
    log = None if resume is None else resume.path / AUDIT_LOG
    entries = read_chain(log).entries if log is not None and log.exists() else ()
    return str(entries[0].get("run_id", "")) if entries else uuid4().hex


class _ShowsModel:
    """Logs the model that the server has sent, before it first runs here."""

    def __init__(self, worker: Worker) -> None:
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
            it, NAME-privacy.jsonl has the rounds that were charged to this site's privacy budget.
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
        federation = Federation(_RUN_ID, {}, welcome.clients, show_errors=False)
        return _ShowsModel(
            Worker(lambda: make_client_app(Resident(scenario, population, "system", account)), federation)
        )

    def note(passed: Passed) -> None:
        logs[0].note(passed)
        if passed.direction == "sent":  # on the disk before it leaves
            logs[0].sync()

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
