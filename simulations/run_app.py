"""Runs the user's own Flower ServerApp and ClientApp on shoal's engine."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from shoal.clients.worker import WorkerContext
from shoal.common.config import ResourcesConfig
from shoal.common.dotted import dotted
from shoal.common.errors import ConfigError
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.plugins import form_problems, load_object
from shoal.common.sites import Sites
from shoal.simulations.engine.executors import make_executor
from shoal.simulations.engine.grid import EngineGrid, run_config_values

_RUN_ID = 1

App = TypeVar("App", ServerApp, ClientApp)


@dataclass(frozen=True, slots=True)
class LoadClientApp:
    """Imports a ClientApp in a worker process."""

    path: str

    def __call__(self) -> ClientApp:
        """Return the app."""
        return _load(self.path, ClientApp)


def run_app(
    server_app: str, client_app: str, clients: int, *, backend: str = "ray", workers: int = 0
) -> None:
    """Run a pair of Flower apps.

    Args:
        server_app: "package.module:name" of a ServerApp, relative to the current directory.
        client_app: "package.module:name" of a ClientApp.
        clients: number of nodes that the apps see; each gets "partition-id" and "num-partitions".
        backend: "ray" or "serial"; workers: Ray workers, 0 for one per core.

    The run config is `[tool.flwr.app.config]` of a `pyproject.toml` in the current directory.
    """
    kind: Literal["ray", "serial"] = "serial" if backend == "serial" else "ray"
    resources = ResourcesConfig(backend=kind, workers=workers)
    server = _load(server_app, ServerApp)
    _load(client_app, ClientApp)  # fails here, with a clear message, rather than in every worker
    identify_process(_RUN_ID)
    config = run_config_values(_app_config(Path("pyproject.toml")))
    federation = WorkerContext(_RUN_ID, config, clients, show_errors=True)
    executor = make_executor(LoadClientApp(client_app), federation, resources)
    try:
        grid = EngineGrid(
            executor, Sites(clients, str), make_run(_RUN_ID), clients_per_chunk=resources.clients_per_chunk
        )
        context = Context(_RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config=config)
        server(grid, context)
    finally:
        executor.close()


def _app_config(file: Path) -> dict[str, object]:
    """Return `[tool.flwr.app.config]` with nested tables flattened, as Flower does."""
    if not file.exists():
        return {}
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    for key in ("tool", "flwr", "app", "config"):
        found = found.get(key, {})
    return dotted(found)


def _load(path: str, kind: type[App]) -> App:
    problems = form_problems(kind.__name__, path, "name")
    if problems:
        raise ConfigError(problems)
    found = load_object(kind.__name__, path)
    if not isinstance(found, kind):
        raise ConfigError(f'"{path}" is a {type(found).__name__}, expected a {kind.__name__}')
    return found
