"""Runs a scenario from its data to its report."""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from shoal.clients.app import make_client_app
from shoal.clients.attacks.adversary import make_adversary
from shoal.common.config import Scenario
from shoal.common.errors import CheckpointError, RunError, ShoalError, StorageError
from shoal.common.events import Observer
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.keras_loading import load_keras
from shoal.common.schema import Population, Schema
from shoal.server.app import Federation, Hooks, Outcome, make_server_app
from shoal.server.checkpoint import Checkpoints
from shoal.server.fitting import Fitted
from shoal.server.sites import Sites
from shoal.simulations import datasets
from shoal.simulations.baselines import PooledResident
from shoal.simulations.closed_form import closed_form
from shoal.simulations.engine.executors import make_executor
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.worker import Federation as WorkerFederation
from shoal.simulations.interrupts import Interrupts
from shoal.simulations.overview import overview
from shoal.simulations.results import RunFolder
from shoal.simulations.results.audit_log import AUDIT_LOG, AuditLog
from shoal.simulations.results.folder import SERVED, EndStatus
from shoal.simulations.results.journal import write_atomically
from shoal.simulations.trace import TraceFile

if TYPE_CHECKING:
    from shoal.simulations.transport.grid import TransportGrid
    from shoal.simulations.transport.superlink import SuperLinkGrid

_RUN_ID = 1  # Flower's id of a run; a process serves one run
_MOST_NAMED = 10  # malicious clients that a message lists
CHECKPOINTS = "checkpoints"  # folder in the run folder
_LEDGER = "privacy.jsonl"  # in the run folder: rounds charged to the privacy budget
_NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclass(frozen=True, slots=True)
class MakeApp:
    """Makes the ClientApp in a worker process; pickles with the population's buffers."""

    scenario: Scenario
    population: Population

    def __call__(self) -> ClientApp:
        """Return the app that serves every client of the population, and the pooled one."""
        return make_client_app(PooledResident(self.scenario, self.population), pooled=True)


def run_scenario(scenario: Scenario, observers: Sequence[Observer] = (), *, trace: bool = False) -> Path:
    """Run a scenario and return its run folder.

    Args:
        scenario: the validated configuration.
        observers: told of everything as it falls, beside the run folder itself.
        trace: also write trace.json, where the time went.

    Raises:
        ShoalError: what went wrong; results up to there are in the run folder.
    """
    population = datasets.load_population(scenario)
    folder = RunFolder.create(scenario)
    _run(folder, scenario, population, observers, trace)
    return folder.path


def resume_run(folder: RunFolder, scenario: Scenario, observers: Sequence[Observer] = ()) -> None:
    """Go on with a run, to the same bits as if it had never stopped.

    It goes on after its last checkpoint, or from the start if it ended before its first.

    Args:
        folder: of the run; scenario: its own, but for where it runs.
        observers: as in `run_scenario`.

    Raises:
        CheckpointError: none of its checkpoints can be used, or the data have changed since.
        RunError: the run is over, or still going on.
    """
    if (folder.path / SERVED).exists():
        raise RunError(f"{folder.name} is of clients elsewhere", hint=f"shoal serve --resume {folder.path} …")
    _refuse_ended(folder)
    population = datasets.load_population(scenario)
    found = Checkpoints(folder.path / CHECKPOINTS, scenario).load()
    for client, rows in found[0]["rows"].items() if found is not None else ():
        now = population.rows(client) if client < len(population) else 0
        if now != sum(rows.values()):
            raise CheckpointError(
                f"the data have changed: {population.name(client)} had {sum(rows.values())} rows, now {now}",
                hint="put the data back as they were, or start a new run",
            )
    folder.resume()
    _run(folder, scenario, population, observers, trace=False)


def _refuse_ended(folder: RunFolder) -> None:
    status = folder.status()
    if status == "running":
        raise RunError(f"{folder.name} is still running")
    if status in ("finished", "stopped early"):
        raise RunError(f"{folder.name} is {status}: there is nothing left to do")


def _run(
    folder: RunFolder, scenario: Scenario, population: Population, observers: Sequence[Observer], trace: bool
) -> None:
    with (
        _log_to(folder.path / "run.log"),
        _closing(folder) as outcomes,
        ExitStack() as closing,
        Interrupts() as interrupts,
    ):
        if trace:
            observers = [*observers, closing.enter_context(TraceFile(folder.path / "trace.json"))]
        hooks = _hooks(folder, population, observers, scenario, interrupts)
        with _watch(folder, scenario, Sites(len(population), population.name)) as wrap:
            where = coordinate(scenario, population, hooks, outcomes.append, wrap, trace=trace)
        _leave_behind(folder, scenario, population.schema, outcomes[0], population, where)


@contextmanager
def _audit_log(folder: RunFolder, about: Mapping[str, object]) -> Iterator[AuditLog]:
    log = AuditLog(folder.path / AUDIT_LOG, {"side": "server", "run": folder.name, **about})
    try:
        yield log
    finally:
        log.close()


@contextmanager
def _watch(folder: RunFolder, scenario: Scenario, sites: Sites) -> Iterator[Callable[[Grid], Grid]]:
    """Give what puts the audit log between the server and the Grid, where the scenario wants one."""
    if not scenario.output.audit:
        yield lambda grid: grid
        return
    from shoal.simulations.audit_grid import AuditGrid  # imports the codec

    with _audit_log(folder, {"clients": sites.count}) as log:
        yield lambda grid: AuditGrid(grid, sites, log)


def coordinate(
    scenario: Scenario,
    population: Population,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    wrap: Callable[[Grid], Grid] = lambda grid: grid,
    *,
    trace: bool = False,
) -> Mapping[str, object]:
    """Run the ServerApp over the Grid that the scenario asks for, and return who did what of the work.

    It leaves nothing on disk.

    Args:
        scenario: the configuration; population: its clients.
        hooks: who is told; deliver: is given the outcome.
        wrap: puts something between the server and the Grid, to watch or disturb messages.
        trace: workers keep the spans of their time.
    """
    identify_process(_RUN_ID)
    sites = Sites(len(population), population.name)
    _tell_attack(scenario, population, hooks)
    pooled = sites.node(sites.count) if scenario.output.compare else None
    total = [population.rows(i) for i in range(sites.count)] if scenario.output.compare else []

    def examples(client: int) -> float:
        return float(sum(total) if client == sites.count else population.rows(client))

    serial = scenario.resources.backend == "serial"
    worker = WorkerFederation(_RUN_ID, {}, sites.count, show_errors=serial, trace=trace)
    states: dict[int, RecordDict] = {}
    federation = Federation(scenario, population.schema, sites, pooled)
    if scenario.resources.ray_address and ":" in scenario.model.name:
        _load_users_model(scenario.model.name)
    with _grid(scenario, MakeApp(scenario, population), worker, sites, examples, states) as grid:
        _serve(wrap(grid), federation, hooks, deliver, states)
        return _where(grid)


def _tell_attack(scenario: Scenario, population: Population, hooks: Hooks) -> None:
    """Tell who is malicious, before any worker starts; raises where attack and data do not fit."""
    adversary = make_adversary(scenario, population)
    if adversary is None:
        return
    some = sorted(adversary.malicious)
    named = ", ".join(population.name(client) for client in some[:_MOST_NAMED])
    more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
    text = f"attack: {scenario.attack.kind} by {len(some)} of {len(population)} clients: {named}{more}"
    for observer in hooks.observers:
        observer.on_message(text)


def _where(grid: EngineGrid | TransportGrid | SuperLinkGrid) -> dict[str, object]:
    """Return, for the summary, what each node of Ray did, or what each client sent over the wire."""
    name, loads = (
        ("placement", grid.placement()) if isinstance(grid, EngineGrid) else ("wire", grid.traffic())
    )
    return {name: [asdict(load) for load in loads]} if loads else {}


def _load_users_model(name: str) -> None:
    """Import the user's model, and what it imports: a cluster is sent what has been imported here."""
    load_keras()
    from shoal.common.models.users_own import load_users_own  # imports Keras

    load_users_own(name)


def _serve(
    grid: Grid,
    federation: Federation,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    states: dict[int, RecordDict],
) -> None:
    app = make_server_app(federation, hooks, deliver, states)
    app(grid, Context(run_id=_RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={}))


def serve(
    scenario: Scenario,
    population: Population,
    over: Callable[[Sites, AuditLog], TransportGrid | SuperLinkGrid],
    observers: Sequence[Observer] = (),
    resume: RunFolder | None = None,
    wrap: Callable[[Grid, Sites, AuditLog], Grid] = lambda grid, sites, log: grid,
    about: Mapping[str, object] = MappingProxyType({}),
) -> Path:
    """Run a scenario over clients elsewhere, and return its run folder.

    The process must say which run it works for (`identify_process`), where Flower has not.

    Args:
        scenario: the configuration.
        population: names and schema of the clients; it is never asked for rows.
        over: makes the Grid over the clients, which may log what goes through it.
        observers: as in `run_scenario`.
        resume: a run to go on with, as `resume_run` does.
        wrap: puts what logs between the server and a Grid that does not.
        about: what the audit log tells of how clients are reached.

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
        _refuse_ended(resume)
        folder = resume
        folder.resume()
    with _log_to(folder.path / "run.log"), _closing(folder) as outcomes, Interrupts() as interrupts:
        hooks = _hooks(folder, population, observers, scenario, interrupts)
        federation = Federation(scenario, population.schema, sites, source="system")
        with _audit_log(folder, {"clients": names, **about}) as log:  # its end comes before the report
            grid = over(sites, log)
            _serve(wrap(grid, sites, log), federation, hooks, outcomes.append, {})
        _leave_behind(folder, scenario, population.schema, outcomes[0], where=_where(grid))
    return folder.path


@contextmanager
def _grid(
    scenario: Scenario,
    make_app: MakeApp,
    worker: WorkerFederation,
    sites: Sites,
    examples: Callable[[int], float],
    states: dict[int, RecordDict],
) -> Iterator[EngineGrid | TransportGrid]:
    """Give the Grid that the scenario asks for, with its clients behind it."""
    resources = scenario.resources
    if resources.transport == "grpc":
        from shoal.simulations.transport.fleet import over_grpc  # Ray takes a second to import

        with over_grpc(make_app, worker, resources, sites, pooled=scenario.output.compare) as found:
            yield found
        return
    executor = make_executor(make_app, worker, resources)
    try:
        yield EngineGrid(
            executor,
            sites,
            make_run(_RUN_ID),
            clients_per_chunk=resources.clients_per_chunk,
            examples=examples,
            states=states,
        )
    finally:
        executor.close()


def _hooks(
    folder: RunFolder,
    population: Population,
    observers: Sequence[Observer],
    scenario: Scenario,
    interrupts: Interrupts,
) -> Hooks:
    def on_fitted(fitted: Fitted) -> None:
        write_atomically(folder.path / "schema.json", population.schema.to_json())
        write_atomically(folder.path / "preprocessing.json", fitted.spec.to_json())
        folder.write_overview(overview(population, fitted))

    checkpoints = Checkpoints(folder.path / CHECKPOINTS, scenario)
    ledger = folder.path / _LEDGER
    return Hooks([folder, *observers], on_fitted, folder.resolve_path, checkpoints, ledger, interrupts.stop)


def _leave_behind(
    folder: RunFolder,
    scenario: Scenario,
    schema: Schema,
    outcome: Outcome,
    population: Population | None = None,
    where: Mapping[str, object] | None = None,
) -> None:
    """Write the models and the closing summary; with the population, also what only its rows can tell."""
    load_keras()  # in a run that goes on after its last round, nothing else has
    from shoal.simulations.export import export_model  # TensorFlow takes seconds to import

    progress, spec = outcome.progress, outcome.fitted.spec
    models: dict[str, ArrayRecord] = {
        "model.keras": progress.best_arrays,
        "model-last.keras": progress.arrays,
    }
    for name, arrays in models.items():
        export_model(scenario, schema, spec, arrays, folder.path / name)
    exact = None if population is None else closed_form(scenario, population, spec, progress.best_arrays)
    folder.finish(
        "stopped early" if progress.stopped_early else "finished",
        {
            "rounds": progress.round,
            "best_round": progress.best_round,
            "best_score": progress.score,
            **({} if exact is None else {"closed_form": exact}),
            **({} if outcome.privacy is None else {"privacy": outcome.privacy}),
            **(where or {}),
        },
    )


@contextmanager
def _closing(folder: RunFolder) -> Iterator[list[Outcome]]:
    """Close the run folder also when the run ends badly, so that what is there can be reported."""
    try:
        yield []
    except KeyboardInterrupt:
        _end(folder, "interrupted", {})
        raise
    except ShoalError as error:
        _end(folder, "failed", {"error": f"{type(error).__name__}: {error}"})
        raise
    except Exception as error:
        _end(folder, "failed", {"error": type(error).__name__})
        if isinstance(error, OSError) and error.errno in _NO_DISK:
            where = error.filename or folder.path
            raise StorageError(f"cannot write {where}: {error.strerror}") from error
        raise
    finally:
        folder.close()


def _end(folder: RunFolder, status: EndStatus, summary: Mapping[str, object]) -> None:
    """End a run that went badly; where not even that can be written, it counts as killed."""
    try:
        folder.finish(status, summary)
    except OSError as error:
        print(f"the run folder lacks its end: {error.strerror}", file=sys.stderr)
    _tell_how_to_go_on(folder)


def _tell_how_to_go_on(folder: RunFolder) -> None:
    if any((folder.path / CHECKPOINTS).glob("round-*.zip")):
        served = (folder.path / SERVED).exists()
        command = f"shoal serve --resume {folder.path} …" if served else f"shoal resume {folder.path}"
        print(f"go on after the last checkpoint with: {command}", file=sys.stderr)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send Flower's log, which would disturb the progress display, to a file of the run."""
    logger = logging.getLogger("flwr")
    before, propagate = logger.handlers[:], logger.propagate
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is told by the run
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagate
        handler.close()
