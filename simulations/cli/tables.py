"""The commands that run one scenario many times and set the runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError, unknown_name
from simulations.cli.options import ScenarioArgument, SetOption, app

_UNITS = ("record", "client", "local")


@app.command("privacy-table")
def privacy_table(
    scenario: ScenarioArgument,
    units: Annotated[
        str, typer.Option(metavar="UNIT,…", help="Whom the promises protect: record, client, local.")
    ] = "record,client",
    epsilons: Annotated[
        str, typer.Option(metavar="NUMBER,…", help="The budgets; 1 is a strong promise, 8 a weak one.")
    ] = "8,3,1",
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the runs and the table; by default one a scenario in runs/."
        ),
    ] = None,
) -> None:
    """Run a scenario without and with differential privacy, and show what each budget costs every site.

    Runs that are finished in the folder are not run again.

    \b
      shoal privacy-table medical-thyroid
      shoal privacy-table my.toml --units record --epsilons 10,3,1,0.3 --set secure.aggregation=true
    """
    asked, budgets = _names(units), _numbers(epsilons)
    folder = output or Path("runs") / f"privacy-table-{Path(scenario).stem}"

    from simulations.privacy_table import as_table, run_privacy_table
    from simulations.terminal import make_console

    metric, rows = run_privacy_table(scenario, asked, budgets, list(set_ or []), folder, typer.echo)
    make_console().print(as_table(metric, rows))
    typer.echo(f"Table: {folder / 'table.html'}")


def _names(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for name in found:
        if name not in _UNITS:
            raise ConfigError(f"--units: {unknown_name('unit', name, _UNITS)}")
    return found


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f'--epsilons: expected numbers with "," between them, got "{text}"') from error
    if not found or min(found) <= 0:
        raise ConfigError(f'--epsilons: expected numbers above 0, got "{text}"')
    return found
