"""The commands that run or read a scenario: run, resume, validate, data; and run-app, scenarios, version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shoal.common.cli_options import ScenarioArgument, SetOption
from shoal.common.errors import ConfigError
from shoal.simulations.cli.options import DirectoryOption, LatestArgument, app, print_version

if TYPE_CHECKING:
    from shoal.common.config import Scenario


@app.command()
def run(
    scenario: ScenarioArgument,
    set_: SetOption = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Also train local-only and centralised models; default: as set in the scenario.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        Literal["ray", "serial"] | None,
        typer.Option(help="Where clients run: in Ray workers (ray) or in this process (serial)."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of federated rounds.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Ray workers; 0 means one per core.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="Join this Ray cluster; auto means the cluster that this machine belongs to.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Directory in which the run folder is created.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also write trace.json, which shows where the time went.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the report.")] = False,
) -> None:
    """Run a scenario and write a run folder with results, models and a report.

    \b
      shoal run medical-thyroid --compare
      shoal run linear --backend serial --rounds 5
      shoal run my.toml --set training.learning_rate=0.05 --set strategy.name=FedProx
    """
    overrides = list(set_ or [])
    for key, value in (
        ("output.compare", compare),
        ("resources.backend", backend),
        ("training.rounds", rounds),
        ("resources.workers", workers),
        ("resources.ray_address", ray_address),
        ("output.directory", str(output) if output is not None else None),
    ):
        if value is not None:
            overrides.append(f"{key}={json.dumps(value)}")  # JSON scalars are TOML values too
    loaded = _load(scenario, overrides)
    _refuse(_validate(loaded, deep=False), scenario)

    from shoal.simulations.progress import ProgressDisplay
    from shoal.simulations.run import run_scenario

    if quiet:
        folder = run_scenario(loaded, trace=profile)
    else:
        with ProgressDisplay(loaded) as progress:
            folder = run_scenario(loaded, observers=[progress], trace=profile)
        _conclude(folder)
    report = folder / "report.html"
    typer.echo(f"Report: {report}" if report.exists() else f"Run folder: {folder}")


def _conclude(path: Path) -> None:
    """Print the answer of a run, as the report begins with it."""
    from shoal.simulations.report.verdict import verdict_of
    from shoal.simulations.results import RunFolder

    run = RunFolder(path)
    verdict = verdict_of(run.scenario(), run.status(), run.round_rows(), run.sites())
    typer.echo(f"\n{verdict.headline}." + "".join(f"\n{sentence}" for sentence in verdict.sentences) + "\n")


@app.command()
def resume(
    run: LatestArgument = "",
    backend: Annotated[
        Literal["ray", "serial"] | None,
        typer.Option(help="Where clients run from now on; default: as before."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Ray workers; default: as before.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="HOST:PORT", help="Join this Ray cluster; default: as before."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the report.")] = False,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Resume a run that was stopped or killed, from its last checkpoint.

    The result is bit-identical to that of a run that was never interrupted.

    \b
      shoal resume
      shoal resume medical-thyroid-20260101-120000
      shoal resume runs/digits-20260101-120000 --workers 8
    """
    from shoal.simulations.progress import ProgressDisplay
    from shoal.simulations.results import RunFolder
    from shoal.simulations.run import resume_run

    folder = RunFolder.open(run, directory)
    if not quiet:
        typer.echo(f"Resuming {folder.path}")
    given = {"backend": backend, "workers": workers, "ray_address": ray_address}
    changed = {key: value for key, value in given.items() if value is not None}
    before = folder.scenario()
    loaded = before.model_copy(update={"resources": before.resources.model_copy(update=changed)})
    if quiet:
        resume_run(folder, loaded)
    else:
        with ProgressDisplay(loaded) as progress:
            resume_run(folder, loaded, [progress])
        _conclude(folder.path)
    typer.echo(f"Report: {folder.path / 'report.html'}")


@app.command()
def validate(
    scenario: ScenarioArgument,
    set_: SetOption = None,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Do not load the data or build the model.")
    ] = False,
) -> None:
    """Check a scenario without training, and list all problems at once.

    \b
      shoal validate my.toml
      shoal validate my.toml --schema-only
      shoal validate digits --set strategy.name=Krum
    """
    loaded = _load(scenario, set_)
    _refuse(_validate(loaded, not schema_only, lambda note: typer.echo(f"note: {note}")), scenario)
    checked = "schema" if schema_only else "schema, data and model"
    typer.echo(f"{scenario}: no problems found ({checked} checked)")


@app.command()
def data(
    scenario: Annotated[
        str | None,
        typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a built-in scenario."),
    ] = None,
    set_: SetOption = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a plot to this HTML file.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in data sets.")] = False,
) -> None:
    """Show each client's data in a scenario: size, label balance, missing values.

    \b
      shoal data --list
      shoal data medical-thyroid
      shoal data digits --set partition.alpha=0.1 --plot digits.html
    """
    if list_:
        from shoal.simulations.datasets.view import list_datasets

        typer.echo(list_datasets())
        return
    if scenario is None:
        raise typer.BadParameter("give a SCENARIO, or use --list", param_hint="SCENARIO")
    loaded = _load(scenario, set_)

    from shoal.simulations import datasets
    from shoal.simulations.datasets import view as data_view

    population = datasets.load_population(loaded)
    data_view.show(population)
    if plot is not None:
        from shoal.simulations.report.population import write_population_page

        write_population_page(loaded.name, population, plot)
        typer.echo(f"plot: {plot}")


@app.command("run-app")
def run_app(
    server_app: Annotated[
        str, typer.Argument(help="The ServerApp as module:name; or the folder of a project.")
    ],
    client_app: Annotated[
        str, typer.Argument(help="The ClientApp as module:name; not for a folder, whose project names both.")
    ] = "",
    clients: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of clients; a project may have its own.")
    ] = 0,
    backend: Annotated[
        Literal["ray", "serial"], typer.Option(help="Where clients run: in Ray workers or in this process.")
    ] = "ray",
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Ray workers; 0 means one per core.")] = 0,
    run_config: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Overrides tool.flwr.app.config of pyproject.toml."),
    ] = None,
) -> None:
    """Run your own Flower ServerApp and ClientApp on shoal's engine.

    Modules are imported relative to the current directory.

    \b
      shoal run-app . --clients 10
      shoal run-app . --run-config "num-server-rounds=5"
      shoal run-app server_app:app client_app:app --clients 10
      shoal run-app my_project.server:app my_project.client:app --clients 100 --workers 8
    """
    from shoal.simulations.run_app import run_app as run_flower_app
    from shoal.simulations.run_app import run_project

    given = run_config or ()
    if not client_app and ":" not in server_app:
        run_project(Path(server_app), clients, backend=backend, workers=workers, run_config=given)
        return
    problems = [] if client_app else ["the ClientApp is missing: name it as module:name"]
    problems += [] if clients else ["--clients is missing: say how many there are"]
    if problems:
        raise ConfigError(problems)
    run_flower_app(server_app, client_app, clients, backend=backend, workers=workers, run_config=given)


@app.command()
def scenarios() -> None:
    """List the built-in scenarios.

    \b
      shoal scenarios
    """
    import tomllib

    from shoal.common.config.file import BUILTIN_SCENARIOS, builtin_names

    for name in builtin_names(BUILTIN_SCENARIOS):
        text = (BUILTIN_SCENARIOS / f"{name}.toml").read_text(encoding="utf-8")
        typer.echo(f"{name:<20} {tomllib.loads(text).get('description', '')}")


@app.command()
def version() -> None:
    """Print the version.

    \b
      shoal version
    """
    print_version()


def load_valid(source: str, overrides: list[str] | None, *, pilot: bool = False) -> Scenario:
    """Load a scenario and raise if it has problems; its data are not read.

    Args:
        source, overrides: as on the command line.
        pilot: whether real sites will run it, which may not be asked everything that simulated ones may.
    """
    from shoal.common.config.cross_checks import pilot_problems

    loaded = _load(source, overrides)
    problems = _validate(loaded, deep=False)
    _refuse([*problems, *(pilot_problems(loaded) if pilot else ())], source)
    return loaded


def _load(source: str, overrides: list[str] | None) -> Scenario:
    from shoal.common.config.file import load_scenario

    return load_scenario(source, overrides or ())


def _validate(scenario: Scenario, deep: bool, say: Callable[[str], object] | None = None) -> list[str]:
    from shoal.simulations.checks.scenario import validate as validate_scenario

    return validate_scenario(scenario, deep, say)


def _refuse(problems: list[str], source: str) -> None:
    if problems:
        raise ConfigError(problems, source=source)
