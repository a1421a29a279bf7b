"""The commands that run one scenario many times and set the runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from shoal.common.cli_options import ScenarioArgument, SetOption
from shoal.common.errors import ConfigError, unknown_name
from shoal.simulations.cli.options import app
from shoal.simulations.cli.running import load_valid

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

    from shoal.simulations.console import make_console
    from shoal.simulations.sweeps.privacy import as_table, run_privacy_table

    metric, rows = run_privacy_table(scenario, asked, budgets, list(set_ or []), folder, typer.echo)
    make_console().print(as_table(metric, rows))
    typer.echo(f"Table: {folder / 'table.html'}")


@app.command("attack-table")
def attack_table(
    scenario: ScenarioArgument,
    attacks: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Attacks by name, with arguments in brackets; by default the usual ones."
        ),
    ] = "",
    defences: Annotated[
        str,
        typer.Option(
            metavar="X,Y", help="Strategies by name, with arguments in brackets; by default all robust ones."
        ),
    ] = "",
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Federated rounds of a cell.")
    ] = None,
    backend: Annotated[
        Literal["ray", "serial"] | None,
        typer.Option(help="Where clients run; serial is quicker for small models, Ray starts for each cell."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Gets the table and all runs; by default in the folder of runs."),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Run every attack against every defence, and tell what is left of the model.

    Each cell is a run of its own. A table that was stopped goes on where it was, if it is called again.

    \b
      shoal attack-table digits --backend serial --rounds 10
      shoal attack-table digits --attacks "sign-flip(factor=4),backdoor(target=7)" --defences Krum,FedMedian
      shoal attack-table my.toml --set attack.fraction=0.3
    """
    overrides = [*(set_ or []), "attack.kind=none"]
    if backend is not None:
        overrides.append(f"resources.backend={json.dumps(backend)}")
    if rounds is not None:
        overrides.append(f"training.rounds={rounds}")
    loaded = load_valid(scenario, overrides)

    from shoal.simulations.sweeps.attacks import make_table

    failed = make_table(loaded, attacks, defences, output, typer.echo)
    if failed:
        typer.echo(f"{failed} cells have no numbers; the page says why", err=True)
        raise typer.Exit(1)


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
