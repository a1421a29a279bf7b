"""What all runs share apart from the rounds: the folder, the log, the audit log, and the end of a run."""

from __future__ import annotations

import errno
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.serverapp import Grid

from shoal.common.audit.log import AUDIT_LOG, AuditLog
from shoal.common.config import Scenario
from shoal.common.errors import RunError, ShoalError, StorageError
from shoal.common.events import Observer
from shoal.common.journal import write_atomically
from shoal.common.keras_loading import load_keras
from shoal.common.printable import PrintableFormatter
from shoal.common.schema import Population, Schema
from shoal.server.app import Federation, Hooks, Outcome, make_server_app
from shoal.server.checkpoint import Checkpoints
from shoal.server.preprocessing.collect import FittedPreprocessing
from shoal.simulations.callbacks import Audience
from shoal.simulations.closed_form import closed_form
from shoal.simulations.engine.client_states import CheckpointedStates
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.interrupts import Interrupts
from shoal.simulations.report import write_report
from shoal.simulations.results import RunFolder
from shoal.simulations.results.folder import SERVED, EndStatus
from shoal.simulations.results.overview import overview
from shoal.simulations.trial import try_out

if TYPE_CHECKING:
    from shoal.server.pilot.grid import TransportGrid
    from shoal.simulations.superlink import SuperLinkGrid

RUN_ID = 1  # Flower's run id; a process serves one run


CHECKPOINTS = "checkpoints"  # folder in the run folder


CLIENT_STATES = "client-states"  # folder in the run folder: the clients' algorithm states
_LEDGER = "privacy.jsonl"  # in the run folder: rounds charged to the privacy budget


_NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def refuse_ended(folder: RunFolder) -> None:
    """Refuse to resume a run that is still running or has ended.

    Raises:
        RunError: it is running, or has ended.
    """
    status = folder.status()
    if status == "running":
        raise RunError(f"{folder.name} is still running")
    if status in ("finished", "stopped early"):
        raise RunError(f"{folder.name} is {status}: there is nothing left to do")


@contextmanager
def open_audit_log(folder: RunFolder, about: Mapping[str, object]) -> Iterator[AuditLog]:
    """Open the server's audit log of a run; `about` describes how clients are reached."""
    log = AuditLog(folder.path / AUDIT_LOG, {"side": "server", "run": folder.name, **about})
    try:
        yield log
    finally:
        log.close()


def work_done(grid: EngineGrid | TransportGrid | SuperLinkGrid) -> dict[str, object]:
    """Return, for the summary, the work done by each Ray node, or the traffic of each client."""
    name, loads = (
        ("placement", grid.placement()) if isinstance(grid, EngineGrid) else ("wire", grid.traffic())
    )
    return {name: [asdict(load) for load in loads]} if loads else {}


def run_server_app(
    grid: Grid,
    federation: Federation,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    contexts: dict[int, RecordDict],
    states: CheckpointedStates | None = None,
) -> None:
    """Run the ServerApp over a Grid; `deliver` receives the outcome, the rest is as in `make_server_app`."""
    app = make_server_app(federation, hooks, deliver, contexts, states)
    app(grid, Context(run_id=RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config={}))


def run_hooks(
    folder: RunFolder,
    population: Population,
    observers: Sequence[Observer],
    scenario: Scenario,
    interrupts: Interrupts,
) -> Hooks:
    """Return the hooks that write a run to its folder and notify the observers."""

    def on_fitted(fitted: FittedPreprocessing) -> None:
        write_atomically(folder.path / "schema.json", population.schema.to_json())
        write_atomically(folder.path / "preprocessing.json", fitted.spec.to_json())
        folder.write_overview(overview(population, fitted))
        try_out(scenario, population.schema, fitted.spec)

    audience = Audience(folder, observers)
    return Hooks(
        [audience],
        on_fitted,
        folder.resolve_execution_mode,
        Checkpoints(folder.path / CHECKPOINTS, scenario),
        folder.path / _LEDGER,
        interrupts.stop,
        audience.enough,
    )


def write_results(
    folder: RunFolder,
    scenario: Scenario,
    schema: Schema,
    outcome: Outcome,
    population: Population | None = None,
    where: Mapping[str, object] | None = None,
) -> None:
    """Write the models and the final summary; with the population, also statistics that need its rows."""
    load_keras()  # in a run resumed after its last round, nothing else has loaded it
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
    write_report(folder)


@contextmanager
def closing(folder: RunFolder) -> Iterator[list[Outcome]]:
    """Close the run folder even if the run fails, so that its results can be reported."""
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
    """Record a run's failure; if even that cannot be written, the run counts as killed."""
    try:
        folder.finish(status, summary)
        write_report(folder)
    except OSError as error:
        print(f"cannot record the end of the run: {error.strerror}", file=sys.stderr)
    _print_resume_command(folder)


def _print_resume_command(folder: RunFolder) -> None:
    saved = any((folder.path / CHECKPOINTS).glob("round-*.zip"))
    if saved or folder.status() == "interrupted":
        served = (folder.path / SERVED).exists()
        path = shlex.quote(str(folder.path))
        command = f"shoal serve --resume {path} …" if served else f"shoal resume {path}"
        where = "from the last checkpoint" if saved else "from the start"
        print(f"resume {where} with: {command}", file=sys.stderr)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send Flower's log to a file of the run, as it would disturb the progress display."""
    logger = logging.getLogger("flwr")
    before, propagate = logger.handlers[:], logger.propagate
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # the run itself reports a full disk
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagate
        handler.close()
