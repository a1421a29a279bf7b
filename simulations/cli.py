"""The command line: `shoal`. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import csv
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.errors import ConfigError, ShoalError
from simulations.engine.environment import QUIET

if TYPE_CHECKING:
    from common.config import Scenario

# Each holds only where the user has not set it.
ENVIRONMENT = QUIET | {
    # Leave CUDA_VISIBLE_DEVICES as it is for workers without a GPU, which Ray otherwise warns about.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "KERAS_BACKEND": "tensorflow",
    "GRPC_VERBOSITY": "ERROR",
}

app = typer.Typer(
    name="shoal",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",  # typer escapes brackets for rich even in plain help
    pretty_exceptions_enable=False,
    help="""Train Keras models over many clients' private data: simulated by Ray, led by Flower.

\b
  shoal scenarios                         what there is to run
  shoal run medical-thyroid --compare     run one, and ask whether federating helped
  shoal run my.toml --set training.rounds=5
  shoal list                              the runs so far

`shoal COMMAND --help` shows examples of each command.""",
)

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a built-in scenario.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key of the scenario; may be repeated. docs/config.md lists the keys.",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name.")]
DirectoryOption = Annotated[
    Path, typer.Option("--directory", metavar="FOLDER", help="The folder that holds the run folders.")
]


@app.command()
def run(
    scenario: ScenarioArgument,
    set_: SetOption = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Also train local-only and centralised models; by default as the scenario says.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        Literal["ray", "serial"] | None,
        typer.Option(help="Where clients run: in Ray workers, or in this process."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Federated rounds.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Ray workers; 0 takes one for each core.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder that gets the run folder.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only where the report is.")] = False,
) -> None:
    """Run a scenario and leave a run folder with results, models and a report.

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
        ("output.directory", str(output) if output is not None else None),
    ):
        if value is not None:
            overrides.append(f"{key}={json.dumps(value)}")  # JSON scalars are TOML values too
    loaded = _load(scenario, overrides)
    _refuse(_validate(loaded, deep=False), scenario)

    from simulations.progress import Progress
    from simulations.run import run_scenario

    folder = run_scenario(loaded, observers=[] if quiet else [Progress(loaded)])
    report = folder / "report.html"
    typer.echo(f"Report: {report}" if report.exists() else f"Run folder: {folder}")


@app.command()
def validate(
    scenario: ScenarioArgument,
    set_: SetOption = None,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Do not load the data nor build the model.")
    ] = False,
) -> None:
    """Check a scenario without training, and list all its problems at once.

    \b
      shoal validate my.toml
      shoal validate my.toml --schema-only
      shoal validate digits --set strategy.name=Krum
    """
    loaded = _load(scenario, set_)
    _refuse(_validate(loaded, deep=not schema_only), scenario)
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
        Path | None, typer.Option(metavar="FILE", help="Also write a plot as an HTML file.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in data sets.")] = False,
) -> None:
    """Show what each client of a scenario holds: sizes, label balance, missing values.

    \b
      shoal data --list
      shoal data medical-thyroid
      shoal data digits --set partition.alpha=0.1 --plot digits.html
    """
    if list_:
        from simulations.data_view import list_datasets

        typer.echo(list_datasets())
        return
    if scenario is None:
        raise typer.BadParameter("name a SCENARIO, or use --list", param_hint="SCENARIO")
    loaded = _load(scenario, set_)

    from simulations import data_view

    data_view.show(loaded, plot=plot)


@app.command()
def predict(
    run: RunArgument,
    rows: Annotated[Path, typer.Argument(help="CSV or Parquet file of raw rows, as the data had them.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV or Parquet file to write; by default CSV on the screen."),
    ] = None,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Predict raw rows with the model of a run; preprocessing is inside the model.

    \b
      shoal predict runs/medical-thyroid-20260101-120000 patients.csv
      shoal predict medical-thyroid-20260101-120000 patients.csv --out predictions.parquet
    """
    from simulations import predict as predict_
    from simulations.results import RunFolder

    table = predict_.predict(RunFolder.open(run, directory).path, rows, out)
    if out is not None:
        typer.echo(f"{table.num_rows} predictions: {out}")
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))


@app.command("list")
def list_command(directory: DirectoryOption = Path("runs")) -> None:
    """List the runs, newest last, with their status and main result.

    \b
      shoal list
      shoal list --directory /data/runs
    """
    from simulations.runs import list_runs

    typer.echo(list_runs(directory))


@app.command()
def show(run: RunArgument, directory: DirectoryOption = Path("runs")) -> None:
    """Show a run: what was run, how it went and how each site fared.

    \b
      shoal show medical-thyroid-20260101-120000
      shoal show runs/medical-thyroid-20260101-120000
    """
    from simulations.results import RunFolder
    from simulations.runs import show_run

    typer.echo(show_run(RunFolder.open(run, directory)))


@app.command()
def report(run: RunArgument, directory: DirectoryOption = Path("runs")) -> None:
    """Write the report of a run again, also of one that was killed.

    \b
      shoal report medical-thyroid-20260101-120000
    """
    from simulations.results import RunFolder
    from simulations.runs import write_report

    typer.echo(f"Report: {write_report(RunFolder.open(run, directory))}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run folder or its name.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Compare two runs: what was configured differently, and what came of it.

    \b
      shoal compare digits-20260101-120000 digits-20260101-130000
    """
    from simulations.results import RunFolder
    from simulations.runs import compare_runs

    typer.echo(compare_runs(RunFolder.open(first, directory), RunFolder.open(second, directory)))


@app.command("run-app")
def run_app(
    server_app: Annotated[str, typer.Argument(help="The ServerApp, as file.py:name or module:name.")],
    client_app: Annotated[str, typer.Argument(help="The ClientApp, as file.py:name or module:name.")],
    clients: Annotated[int, typer.Option(min=1, metavar="N", help="Number of clients.")],
    backend: Annotated[Literal["ray", "serial"], typer.Option(help="Where clients run.")] = "ray",
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ray workers; 0 takes one for each core.")
    ] = 0,
) -> None:
    """Run a Flower ServerApp and ClientApp of your own on shoal's engine.

    \b
      shoal run-app server.py:app client.py:app --clients 10
      shoal run-app my_project.server:app my_project.client:app --clients 100 --workers 8
    """
    from simulations.run_app import run_app as run_flower_app

    run_flower_app(server_app, client_app, clients, backend=backend, workers=workers)


@app.command()
def scenarios() -> None:
    """List the built-in scenarios.

    \b
      shoal scenarios
    """
    import tomllib

    from simulations import BUILTIN_SCENARIOS

    for path in sorted(BUILTIN_SCENARIOS.glob("*.toml")):
        description = tomllib.loads(path.read_text(encoding="utf-8")).get("description", "")
        typer.echo(f"{path.stem:<20} {description}")


@app.command()
def version() -> None:
    """Print the version.

    \b
      shoal version
    """
    from importlib.metadata import version as installed

    typer.echo(f"shoal {installed('shoal')}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the error class (see docs/errors.md)."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        app(args=arguments, prog_name="shoal")
    except ShoalError as error:
        _flush()
        typer.echo(f"{type(error).__name__}: {error}\n\n{error.help}", err=True)
        sys.exit(error.exit_code)
    except Exception:
        _flush()
        traceback.print_exc()
        typer.echo("\nThis is a fault in shoal, or in a package or plug-in that it called.", err=True)
        sys.exit(1)


def _flush() -> None:
    """Let what was printed before an error stand before it."""
    sys.stdout.flush()


def _load(source: str, overrides: list[str] | None) -> Scenario:
    from simulations import load_scenario

    return load_scenario(source, overrides or ())


def _validate(scenario: Scenario, deep: bool) -> list[str]:
    from simulations.validation import validate as validate_scenario

    return validate_scenario(scenario, deep)


def _refuse(problems: list[str], source: str) -> None:
    if problems:
        raise ConfigError(problems, source=source)


if __name__ == "__main__":
    main()
