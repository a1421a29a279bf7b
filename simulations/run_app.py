"""Runs the user's own Flower ServerApp and ClientApp on shoal's engine."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from click import ClickException
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from shoal.clients.worker import WorkerContext
from shoal.common.config import ResourcesConfig
from shoal.common.dotted import dotted
from shoal.common.errors import ConfigError, unknown_name
from shoal.common.flower_shim import identify_process, make_run, parse_config_args
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


def run_project(
    folder: Path, clients: int, *, backend: str = "ray", workers: int = 0, run_config: Sequence[str] = ()
) -> None:
    """Run the apps that the `pyproject.toml` of a folder names; that folder becomes the current directory.

    Args:
        folder: of the project; clients: number of nodes, 0 for `options.num-supernodes` of the project's
            default federation, as older versions of Flower read it.
        backend, workers, run_config: as for `run_app`.

    Raises:
        ConfigError: the file lacks a component, or the number of clients is not known.
    """
    file = folder / "pyproject.toml"
    if not file.exists():
        raise ConfigError(
            f"{folder} has no pyproject.toml", hint="name the apps: shoal run-app module:name module:name"
        )
    flwr = _flower_table(file)
    components = flwr.get("app", {}).get("components", {})
    missing = [name for name in ("serverapp", "clientapp") if not isinstance(components.get(name), str)]
    if missing:
        raise ConfigError([f"{file}: tool.flwr.app.components.{name} is missing" for name in missing])
    clients = clients or _supernodes(flwr)
    if clients < 1:
        raise ConfigError(f"{file} does not say how many clients there are: set --clients N")
    os.chdir(folder)
    run_app(
        components["serverapp"],
        components["clientapp"],
        clients,
        backend=backend,
        workers=workers,
        run_config=run_config,
    )


def run_app(
    server_app: str,
    client_app: str,
    clients: int,
    *,
    backend: str = "ray",
    workers: int = 0,
    run_config: Sequence[str] = (),
) -> None:
    """Run a pair of Flower apps.

    Args:
        server_app: "package.module:name" of a ServerApp, relative to the current directory.
        client_app: "package.module:name" of a ClientApp.
        clients: number of nodes that the apps see; each gets "partition-id" and "num-partitions".
        backend: "ray" or "serial"; workers: Ray workers, 0 for one per core.
        run_config: "key=value" texts that override the run config, with values as in TOML.

    The run config is `[tool.flwr.app.config]` of a `pyproject.toml` in the current directory.

    Raises:
        ConfigError: an app cannot be loaded, or the run config is invalid.
    """
    kind: Literal["ray", "serial"] = "serial" if backend == "serial" else "ray"
    resources = ResourcesConfig(backend=kind, workers=workers)
    server = _load(server_app, ServerApp)
    _load(client_app, ClientApp)  # fails here, with a clear message, rather than in every worker
    identify_process(_RUN_ID)
    config = _run_config(Path("pyproject.toml"), run_config)
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


def _run_config(file: Path, overrides: Sequence[str]) -> UserConfig:
    """Return `[tool.flwr.app.config]` with nested tables flattened, and overridden, as Flower does."""
    declared = dotted(_flower_table(file).get("app", {}).get("config", {})) if file.exists() else {}
    try:
        given = parse_config_args(list(overrides))
    except (ClickException, ValueError) as error:
        raise ConfigError(
            "--run-config cannot be read", hint="write it like \"num-server-rounds=3 name='x'\""
        ) from error
    unknown = [name for name in given if name not in declared]
    if unknown:
        raise ConfigError(
            [f"--run-config: {unknown_name('key of tool.flwr.app.config', n, declared)}" for n in unknown]
        )
    return run_config_values({**declared, **given})


def _flower_table(file: Path) -> dict[str, Any]:
    """Return `[tool.flwr]` of a pyproject.toml; empty if there is none.

    Raises:
        ConfigError: the file is no TOML.
    """
    try:
        whole = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}", hint="save it as UTF-8") from error
    found = whole.get("tool", {}).get("flwr", {})
    return found if isinstance(found, dict) else {}


def _supernodes(flwr: Mapping[str, Any]) -> int:
    """Return the number of nodes of the default federation; 0 if there is none."""
    federations = flwr.get("federations", {})
    chosen = federations.get(federations.get("default"), {})
    count = chosen.get("options", {}).get("num-supernodes", 0) if isinstance(chosen, dict) else 0
    return count if isinstance(count, int) else 0


def _load(path: str, kind: type[App]) -> App:
    problems = form_problems(kind.__name__, path, "name")
    if problems:
        raise ConfigError(problems)
    found = load_object(kind.__name__, path)
    if not isinstance(found, kind):
        raise ConfigError(f'"{path}" is a {type(found).__name__}, expected a {kind.__name__}')
    return found
