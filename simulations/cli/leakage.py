"""The command that attacks a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.simulations.cli.options import DirectoryOption, RunArgument, app


@app.command()
def leakage(
    run: RunArgument,
    attacks: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Which attacks, with commas between them."),
    ] = "membership,lira,inversion,canary",
    shadows: Annotated[
        int, typer.Option(min=2, metavar="N", help="Shadow models for LiRA: each trains the scenario once.")
    ] = 16,
    canaries: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Canaries put into training; 0 takes a tenth of the rows, at most 1,000, or 100 clients.",
        ),
    ] = 0,
    clients: Annotated[
        str, typer.Option(metavar="NAMES", help="Whose rows to attack, with commas; by default all clients'.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Seed of the audit; by default the run's.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the results only.")] = False,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Attack a finished run, and measure what its model and updates tell of rows (docs/leakage.md).

    Writes leakage.json into the run folder, and the report anew. No row, true or reconstructed, is shown or
    kept.

    \b
      shoal leakage medical-thyroid-20260101-120000
      shoal leakage runs/digits-20260101-120000 --attacks membership,inversion
      shoal leakage my-run --attacks lira --shadows 64 --clients SVI,SVHC
    """
    from shoal.simulations.leakage.audit import Effort, measure_leakage
    from shoal.simulations.leakage.table import print_leakage
    from shoal.simulations.results import RunFolder

    folder = RunFolder.open(run, directory)
    effort = Effort(shadows, canaries) if quiet else Effort(shadows, canaries, typer.echo)
    found = measure_leakage(folder, _names(attacks), _names(clients), seed, effort)
    print_leakage(found)
    typer.echo(f"Report: {folder.path / 'report.html'}")


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]
