"""The commands that run one scenario many times and compare the runs in a table."""

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
        str, typer.Option(metavar="UNIT,…", help="Units of privacy to try: record, client, local.")
    ] = "record,client",
    epsilons: Annotated[
        str, typer.Option(metavar="NUMBER,…", help="Budgets to try: 1 is a strong guarantee, 8 a weak one.")
    ] = "8,3,1",
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Directory for the runs and the table; default: one per scenario in runs/."
        ),
    ] = None,
) -> None:
    """Run a scenario with and without differential privacy, and show what each budget costs each site.

    Runs in the output folder that are already finished are not repeated.

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
        typer.Option(metavar="A,B", help="Attacks, with arguments in parentheses; default: the usual ones."),
    ] = "",
    defences: Annotated[
        str,
        typer.Option(
            metavar="X,Y", help="Strategies, with arguments in parentheses; default: all robust ones."
        ),
    ] = "",
    rounds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Federated rounds per cell.")] = None,
    backend: Annotated[
        Literal["ray", "serial"] | None,
        typer.Option(
            help="Where clients run; serial is faster for small models, as Ray starts once per cell."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Directory for the table and all runs; default: inside runs/."),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Run every attack against every defence, and show how well the model still works.

    Each cell is a separate run. Call the command again to continue a table that was stopped.

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
        typer.echo(f"{failed} cells failed; the page says why", err=True)
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
        raise ConfigError(f'--epsilons: expected numbers separated by commas, got "{text}"') from error
    if not found or min(found) <= 0:
        raise ConfigError(f'--epsilons: expected numbers above 0, got "{text}"')
    return found
