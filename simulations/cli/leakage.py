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
        typer.Option(metavar="NAMES", help="Attacks to run, separated by commas."),
    ] = "membership,lira,inversion,canary",
    shadows: Annotated[
        int,
        typer.Option(min=2, metavar="N", help="Shadow models for LiRA; each one trains the scenario once."),
    ] = 16,
    canaries: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Canaries to insert into training; 0: a tenth of the rows, at most 1,000, or 100 clients.",
        ),
    ] = 0,
    clients: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Clients whose rows to attack, separated by commas; default: all."
        ),
    ] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Seed of the audit; default: the run's seed.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the results.")] = False,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Attack a finished run, and measure what its model and updates reveal (docs/leakage.md).

    Writes leakage.json into the run folder and updates the report. No row, true or reconstructed, is shown
    or stored.

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
