"""The commands that read run folders: predict, list, show, report, compare."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.common.cli_options import SetOption
from shoal.simulations.cli.options import DirectoryOption, LatestArgument, RunArgument, app

if TYPE_CHECKING:
    import pyarrow as pa


@app.command()
def predict(
    run: RunArgument,
    rows: Annotated[
        Path,
        typer.Argument(help="CSV or Parquet file of raw rows, with the input columns of the training data."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV or Parquet file to write; default: print CSV."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the rows to put before the predictions.")
    ] = None,
    set_: SetOption = None,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Predict raw rows with the model of a run; the model includes the preprocessing.

    If the file is written differently from the training data, say how with --set data.args.….

    \b
      shoal predict runs/medical-thyroid-20260101-120000 patients.csv
      shoal predict runs/mine-20260101-120000 new.csv --key patient --set data.args.delimiter=";"
      shoal predict medical-thyroid-20260101-120000 patients.csv --out predictions.parquet
    """
    from shoal.simulations.predict import predict as predict_rows
    from shoal.simulations.results import RunFolder

    table = predict_rows(RunFolder.open(run, directory).path, rows, out, key=key, overrides=set_ or ())
    if out is not None:
        typer.echo(f"{table.num_rows} predictions: {out}")
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(_printed(column) for column in table.columns), strict=True))


def _printed(column: pa.ChunkedArray) -> list[object]:
    """Return the values of a column, numbers with the digits that float32 arithmetic supports."""
    return [f"{value:.6g}" if isinstance(value, float) else value for value in column.to_pylist()]


@app.command("list")
def list_command(directory: DirectoryOption = Path("runs")) -> None:
    """List all runs with their status and main result, newest last.

    \b
      shoal list
      shoal list --directory /data/runs
    """
    from shoal.simulations.results.terminal import list_runs

    list_runs(directory)


@app.command()
def show(run: LatestArgument = "", directory: DirectoryOption = Path("runs")) -> None:
    """Show a run: its settings, its course, and the result of each site.

    \b
      shoal show
      shoal show medical-thyroid-20260101-120000
      shoal show runs/medical-thyroid-20260101-120000
    """
    from shoal.simulations.results.terminal import show_run

    show_run(run, directory)


@app.command()
def report(run: LatestArgument = "", directory: DirectoryOption = Path("runs")) -> None:
    """Write the report of a run again, even if the run was killed.

    \b
      shoal report medical-thyroid-20260101-120000
    """
    from shoal.simulations.results.terminal import rewrite_report

    typer.echo(f"Report: {rewrite_report(run, directory)}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of a run.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Compare two runs: differences in the configuration and in the results.

    \b
      shoal compare digits-20260101-120000 digits-20260101-130000
    """
    from shoal.simulations.results.terminal import compare_runs

    compare_runs(first, second, directory)
