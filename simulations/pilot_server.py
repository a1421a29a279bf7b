"""Runs a scenario with real sites: waits for the clients, runs the rounds, and writes the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from flwr.serverapp import Grid

from shoal.common.audit.log import AuditLog
from shoal.common.config import Scenario
from shoal.common.events import Observer
from shoal.common.journal import write_atomically
from shoal.common.schema import Population
from shoal.common.sites import Sites
from shoal.server.app import Federation
from shoal.simulations.interrupts import Interrupts
from shoal.simulations.lifecycle import (
    RUN_ID,
    closing,
    log_to,
    open_audit_log,
    refuse_ended,
    run_hooks,
    run_server_app,
    work_done,
    write_results,
)
from shoal.simulations.results import RunFolder
from shoal.simulations.results.folder import SERVED

if TYPE_CHECKING:
    from shoal.server.pilot.grid import TransportGrid
    from shoal.simulations.superlink import SuperLinkGrid


import logging
from dataclasses import dataclass
from importlib.metadata import version
from uuid import uuid4

import grpc

from shoal.common.audit.check import read_chain
from shoal.common.audit.log import AUDIT_LOG
from shoal.common.errors import TransportError
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.schema import Schema, Shard
from shoal.common.wire.agreement import agreement
from shoal.server.pilot.grid import TransportGrid
from shoal.server.pilot.grpc_server import Policy, TransportServer
from shoal.server.pilot.meter import serve_metrics

_log = logging.getLogger("shoal.transport")


@dataclass(frozen=True, slots=True)
class RemotePopulation:
    """The clients as known to the server: names and a schema, but no rows."""

    schema: Schema
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, client: int) -> str:
        """Return the name of a client."""
        return self.names[client]

    def rows(self, client: int) -> int:
        """Refuse."""
        raise TransportError("the server has no rows: they stay at the sites")

    def shard(self, client: int) -> Shard:
        """Refuse."""
        raise TransportError("the server has no rows: they stay at the sites")


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
        scenario: the configuration; schema: agreed on by all sites.
        address: "host:port" to listen on; credentials, policy: as for `TransportServer`.
        wait_s: seconds to wait for all clients before starting with the connected ones.
        observers: as for `run_scenario`; resume: a run to resume; say: called with progress messages.
        metrics: "host:port" for Prometheus metrics; "" for none.

    Raises:
        TransportError: the address cannot be used, or no client connected.
    """
    run_id = _run_id(resume)
    common = agreement(scenario, schema)
    server = TransportServer(address, credentials, policy, version("shoal"), common, run_id)
    try:
        identify_process(RUN_ID)
        if metrics:
            serve_metrics(server.meter, metrics)
        say(f"listening on port {server.port} for {len(policy.names)} clients")
        there = server.wait_for(len(policy.names), wait_s)
        if not there:
            raise TransportError(
                f"no client connected within {wait_s:g} s",
                hint="check that clients use this address and certificates of this authority",
            )
        say(f"{len(there)} of {len(policy.names)} clients are connected")
        population = RemotePopulation(schema, policy.names)
        about = {"tls": credentials is not None, "run_id": run_id}

        def over(sites: Sites, log: AuditLog) -> TransportGrid:
            return TransportGrid(server, sites, make_run(RUN_ID), scenario.resources.compression, log)

        return serve(scenario, population, over, observers, resume, about=about)
    finally:
        server.close()


def _run_id(resume: RunFolder | None) -> str:
    """Return the id of the run to resume, or a new one."""
    log = None if resume is None else resume.path / AUDIT_LOG
    entries = read_chain(log).entries if log is not None and log.exists() else ()
    return str(entries[0].get("run_id", "")) if entries else uuid4().hex


def serve(
    scenario: Scenario,
    population: Population,
    over: Callable[[Sites, AuditLog], TransportGrid | SuperLinkGrid],
    observers: Sequence[Observer] = (),
    resume: RunFolder | None = None,
    wrap: Callable[[Grid, Sites, AuditLog], Grid] = lambda grid, sites, log: grid,
    about: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """Run a scenario with real sites, and return its run folder.

    The process must say which run it works for (`identify_process`), where Flower has not.

    Args:
        scenario: the configuration.
        population: names and schema of the clients; its rows are never requested.
        over: creates the Grid over the clients, with an optional log of messages.
        observers: as in `run_scenario`.
        resume: a run to resume, as in `resume_run`.
        wrap: adds logging to a Grid that does not log itself.
        about: fields of the audit log on how clients are reached.

    Raises:
        ShoalError: as `run_scenario`.
    """
    # Each site is on its own: there is nothing to stack.
    resources = scenario.resources.model_copy(update={"transport": "grpc"})
    scenario = scenario.model_copy(update={"resources": resources})
    sites = Sites(len(population), population.name)
    names = [population.name(client) for client in range(sites.count)]
    if resume is None:
        folder = RunFolder.create(scenario)
        write_atomically(folder.path / SERVED, json.dumps(names))
    else:
        refuse_ended(resume)
        folder = resume
        folder.resume()
    with log_to(folder.path / "run.log"), closing(folder) as outcomes, Interrupts() as interrupts:
        hooks = run_hooks(folder, population, observers, scenario, interrupts)
        federation = Federation(scenario, population.schema, sites, source="system")
        with open_audit_log(folder, {"clients": names, **about}) as log:  # its end comes before the report
            grid = over(sites, log)
            run_server_app(wrap(grid, sites, log), federation, hooks, outcomes.append, {})
        write_results(folder, scenario, population.schema, outcomes[0], where=work_done(grid))
    return folder.path
