"""Runs a scenario from its data to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from shoal.clients.algorithms import keeps_states
from shoal.clients.app import make_client_app
from shoal.clients.state import ClientStateStore
from shoal.clients.worker import WorkerContext
from shoal.common.config import Scenario
from shoal.common.errors import CheckpointError, RunError
from shoal.common.events import Observer
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.keras_loading import load_keras
from shoal.common.schema import Population
from shoal.common.sites import Sites
from shoal.server.app import Federation, Hooks, Outcome
from shoal.server.checkpoint import Checkpoints
from shoal.simulations import callbacks, datasets
from shoal.simulations.attacks.adversary import make_adversary
from shoal.simulations.baselines import PooledRuntime
from shoal.simulations.engine.client_states import CheckpointedStates, ClientStateFolder, state_store
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.session import Engine
from shoal.simulations.interrupts import Interrupts
from shoal.simulations.lifecycle import (
    CHECKPOINTS,
    CLIENT_STATES,
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
from shoal.simulations.portable_model import GivenModelConfig
from shoal.simulations.results import RunFolder
from shoal.simulations.results.folder import SERVED
from shoal.simulations.trace import TraceFile

if TYPE_CHECKING:
    from shoal.server.pilot.grid import TransportGrid

_MOST_NAMED = 10  # malicious clients listed in a message


@dataclass(frozen=True, slots=True)
class MakeApp:
    """Makes the ClientApp in a worker process; pickles with the population's buffers."""

    scenario: Scenario
    population: Population

    def __call__(self) -> ClientApp:
        """Return the app for every client of the population, including the pooled one."""
        return make_client_app(PooledRuntime(self.scenario, self.population), pooled=True)


def run_scenario(
    scenario: Scenario,
    observers: Sequence[Observer] = (),
    *,
    trace: bool = False,
    population: Population | None = None,
    engine: Engine | None = None,
) -> Path:
    """Run a scenario and return its run folder.

    Args:
        scenario: the validated configuration.
        observers: receive each row as it is produced, after the run folder; callbacks, before it.
        trace: also write trace.json, which shows where the time went.
        population: the clients, if already loaded; `None` loads the data that the scenario names.
        engine: keeps its workers for the next run; `None` starts workers for this run only.

    Raises:
        ShoalError: the reason; results so far are in the run folder.
    """
    if population is None:
        population = datasets.load_population(scenario)
    folder = RunFolder.create(scenario)
    _run(folder, scenario, population, observers, trace, engine)
    return folder.path


def resume_run(
    folder: RunFolder,
    scenario: Scenario,
    observers: Sequence[Observer] = (),
    *,
    population: Population | None = None,
    engine: Engine | None = None,
) -> None:
    """Resume a run; the result is bit-identical to a run that was never interrupted.

    It continues after the last checkpoint, or from the start if there is none.

    Args:
        folder: of the run; scenario: its own, except for keys that decide where it runs.
        observers, population, engine: as in `run_scenario`.

    Raises:
        CheckpointError: none of its checkpoints is usable, or the data have changed since.
        RunError: the run has ended, or is still running.
    """
    if (folder.path / SERVED).exists():
        raise RunError(
            f"{folder.name} is a run with remote clients", hint=f"shoal serve --resume {folder.path} …"
        )
    refuse_ended(folder)
    if population is None:
        population = datasets.load_population(scenario)
    found = Checkpoints(folder.path / CHECKPOINTS, scenario).load()
    for client, rows in found[0]["rows"].items() if found is not None else ():
        now = population.rows(client) if client < len(population) else 0
        if now != sum(rows.values()):
            raise CheckpointError(
                f"the data have changed: {population.name(client)} had {sum(rows.values())} rows, now {now}",
                hint="restore the original data, or start a new run",
            )
    folder.resume()
    _run(folder, scenario, population, observers, False, engine)


def _run(
    folder: RunFolder,
    scenario: Scenario,
    population: Population,
    observers: Sequence[Observer],
    trace: bool,
    engine: Engine | None,
) -> None:
    try:
        _run_in(folder, scenario, population, observers, trace, engine)
    finally:
        callbacks.end(observers, folder.status(), folder.path)


def _run_in(
    folder: RunFolder,
    scenario: Scenario,
    population: Population,
    observers: Sequence[Observer],
    trace: bool,
    engine: Engine | None,
) -> None:
    with (
        log_to(folder.path / "run.log"),
        closing(folder) as outcomes,
        ExitStack() as stack,
        Interrupts() as interrupts,
    ):
        callbacks.start(observers, scenario, folder.path)
        if trace:
            observers = [*observers, stack.enter_context(TraceFile(folder.path / "trace.json"))]
        hooks = run_hooks(folder, population, observers, scenario, interrupts)
        with _watch(folder, scenario, Sites(len(population), population.name)) as wrap:
            where = coordinate(
                scenario,
                population,
                hooks,
                outcomes.append,
                wrap,
                trace=trace,
                engine=engine,
                state_folder=folder.path / CLIENT_STATES,
            )
        write_results(folder, scenario, population.schema, outcomes[0], population, where)


@contextmanager
def _watch(folder: RunFolder, scenario: Scenario, sites: Sites) -> Iterator[Callable[[Grid], Grid]]:
    """Yield a function that puts the audit log between the server and a Grid, if the scenario wants one."""
    if not scenario.output.audit:
        yield lambda grid: grid
        return
    from shoal.server.audit_grid import AuditGrid  # imports the codec

    with open_audit_log(folder, {"clients": sites.count}) as log:
        yield lambda grid: AuditGrid(grid, sites, log)


def coordinate(
    scenario: Scenario,
    population: Population,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    wrap: Callable[[Grid], Grid] = lambda grid: grid,
    *,
    trace: bool = False,
    engine: Engine | None = None,
    state_folder: Path | None = None,
) -> Mapping[str, object]:
    """Run the ServerApp over the scenario's Grid, and return the work done by each node.

    Writes nothing to disk except clients' states, if there are any and a folder for them.

    Args:
        scenario: the configuration; population: its clients.
        hooks: callbacks of the server; deliver: called with the outcome.
        wrap: wraps the Grid, to observe or disturb messages.
        trace: workers record the spans of their time.
        engine: provides the workers; `None` for workers that end with the run.
        state_folder: for the clients' algorithm states; `None` keeps them in memory.
    """
    identify_process(RUN_ID)
    sites = Sites(len(population), population.name)
    _report_attack(scenario, population, hooks)
    pooled = sites.node(sites.count) if scenario.output.compare else None
    total = [population.rows(i) for i in range(sites.count)] if scenario.output.compare else []

    def examples(client: int) -> float:
        return float(sum(total) if client == sites.count else population.rows(client))

    serial = scenario.resources.backend == "serial"
    worker = WorkerContext(RUN_ID, {}, sites.count, show_errors=serial, trace=trace)
    contexts: dict[int, RecordDict] = {}
    federation = Federation(scenario, population.schema, sites, pooled)
    named = ":" in scenario.model.name and not isinstance(scenario.model, GivenModelConfig)
    if scenario.resources.ray_address and named:
        _load_users_model(scenario.model.name)
    make_app = MakeApp(scenario, population)
    with (
        nullcontext(engine) if engine is not None else Engine() as running,
        state_store(scenario, state_folder) as store,
        _grid(scenario, make_app, worker, sites, examples, contexts, store, running, state_folder) as grid,
    ):
        states = None if store is None else CheckpointedStates(store)
        run_server_app(wrap(grid), federation, hooks, deliver, contexts, states)
        return work_done(grid)


def _report_attack(scenario: Scenario, population: Population, hooks: Hooks) -> None:
    """Report which clients are malicious, before any worker starts; raises if attack and data do not fit."""
    adversary = make_adversary(scenario, population)
    if adversary is None:
        return
    some = sorted(adversary.malicious)
    named = ", ".join(population.name(client) for client in some[:_MOST_NAMED])
    more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
    text = f"attack: {scenario.attack.kind} by {len(some)} of {len(population)} clients: {named}{more}"
    for observer in hooks.observers:
        observer.on_message(text)


def _load_users_model(name: str) -> None:
    """Import the user's model and its imports: the modules sent to a cluster are those imported here."""
    load_keras()
    from shoal.common.models.users_own import load_users_own  # imports Keras

    load_users_own(name)


@contextmanager
def _grid(
    scenario: Scenario,
    make_app: MakeApp,
    worker: WorkerContext,
    sites: Sites,
    examples: Callable[[int], float],
    contexts: dict[int, RecordDict],
    store: ClientStateStore | None,
    engine: Engine,
    state_folder: Path | None,
) -> Iterator[EngineGrid | TransportGrid]:
    """Yield the scenario's Grid, with its clients."""
    resources = scenario.resources
    if resources.transport == "grpc":
        from shoal.simulations.engine.grpc_fleet import over_grpc  # Ray takes a second to import

        engine.release()  # the clients started here need the memory
        keeps = (
            ClientStateFolder(state_folder, scenario.output.checkpoint_every)
            if keeps_states(scenario)
            else None
        )
        pooled = scenario.output.compare
        with over_grpc(make_app, worker, resources, sites, pooled=pooled, keeps=keeps) as found:
            yield found
        return
    with engine.executor(make_app, worker, resources) as executor:
        yield EngineGrid(
            executor,
            sites,
            make_run(RUN_ID),
            clients_per_chunk=resources.clients_per_chunk,
            examples=examples,
            contexts=contexts,
            states=store,
            pooled=scenario.output.compare,
        )
