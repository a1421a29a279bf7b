"""Runs a scenario from its data to its report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from clients.app import make_client_app
from common.config import Scenario
from common.errors import ShoalError
from common.events import Observer
from common.flower_shim import identify_process, make_run
from common.schema import Population
from server.app import Federation, Fitted, Hooks, Outcome, make_server_app
from server.sites import Sites
from simulations import datasets
from simulations.baselines import PooledResident
from simulations.closed_form import closed_form
from simulations.engine.executors import make_executor
from simulations.engine.grid import EngineGrid
from simulations.engine.worker import Federation as WorkerFederation
from simulations.overview import overview
from simulations.results import RunFolder
from simulations.trace import TraceFile

_RUN_ID = 1  # Flower's id of a run; a process serves one run


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
    with _log_to(folder.path / "run.log"), _closing(folder) as outcomes, ExitStack() as closing:
        if trace:
            observers = [*observers, closing.enter_context(TraceFile(folder.path / "trace.json"))]
        hooks = _hooks(folder, population, observers)
        coordinate(scenario, population, hooks, outcomes.append, trace=trace)
        _leave_behind(folder, scenario, population, outcomes[0])
    return folder.path


def coordinate(
    scenario: Scenario,
    population: Population,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    wrap: Callable[[Grid], Grid] = lambda grid: grid,
    *,
    trace: bool = False,
) -> None:
    """Run the ServerApp over the Grid that the scenario asks for; leaves nothing on disk.

    Args:
        scenario: the configuration; population: its clients.
        hooks: who is told; deliver: is given the outcome.
        wrap: puts something between the server and the Grid, to watch or disturb messages.
        trace: workers keep the spans of their time.
    """
    identify_process(_RUN_ID)
    sites = Sites(len(population), population.name)
    pooled = sites.node(sites.count) if scenario.output.compare else None
    total = [population.rows(i) for i in range(sites.count)] if scenario.output.compare else []

    def examples(client: int) -> float:
        return float(sum(total) if client == sites.count else population.rows(client))

    serial = scenario.resources.backend == "serial"
    worker = WorkerFederation(_RUN_ID, {}, sites.count, show_errors=serial, trace=trace)
    executor = make_executor(MakeApp(scenario, population), worker, scenario.resources)
    try:
        grid = EngineGrid(
            executor,
            sites,
            make_run(_RUN_ID),
            clients_per_chunk=scenario.resources.clients_per_chunk,
            examples=examples,
        )
        app = make_server_app(Federation(scenario, population.schema, sites, pooled), hooks, deliver)
        context = Context(run_id=_RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={})
        app(wrap(grid), context)
    finally:
        executor.close()


def _hooks(folder: RunFolder, population: Population, observers: Sequence[Observer]) -> Hooks:
    def on_fitted(fitted: Fitted) -> None:
        (folder.path / "schema.json").write_text(population.schema.to_json(), encoding="utf-8")
        (folder.path / "preprocessing.json").write_text(fitted.spec.to_json(), encoding="utf-8")
        folder.write_overview(overview(population, fitted))

    return Hooks([folder, *observers], on_fitted, folder.resolve_path)


def _leave_behind(folder: RunFolder, scenario: Scenario, population: Population, outcome: Outcome) -> None:
    """Write the models and the closing summary."""
    from simulations.export import export_model  # TensorFlow takes seconds to import

    progress, spec = outcome.progress, outcome.fitted.spec
    models: dict[str, ArrayRecord] = {
        "model.keras": progress.best_arrays,
        "model-last.keras": progress.arrays,
    }
    for name, arrays in models.items():
        export_model(scenario, population.schema, spec, arrays, folder.path / name)
    exact = closed_form(scenario, population, spec, progress.best_arrays)
    folder.finish(
        "stopped early" if progress.stopped_early else "finished",
        {
            "rounds": progress.round,
            "best_round": progress.best_round,
            "best_score": progress.score,
            **({} if exact is None else {"closed_form": exact}),
        },
    )


@contextmanager
def _closing(folder: RunFolder) -> Iterator[list[Outcome]]:
    """Close the run folder also when the run ends badly, so that what is there can be reported."""
    try:
        yield []
    except KeyboardInterrupt:
        folder.finish("interrupted", {})
        raise
    except ShoalError as error:
        folder.finish("failed", {"error": f"{type(error).__name__}: {error}"})
        raise
    except Exception as error:
        folder.finish("failed", {"error": type(error).__name__})
        raise


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send Flower's log, which would disturb the progress display, to a file of the run."""
    logger = logging.getLogger("flwr")
    before, propagate = logger.handlers[:], logger.propagate
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagate
        handler.close()
