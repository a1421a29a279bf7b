"""The command that tries attacks against defences: attack-table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from simulations.cli.options import ScenarioArgument, SetOption, app
from simulations.cli.running import load_valid


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

    from simulations.robustness.command import make_table

    failed = make_table(loaded, attacks, defences, output, typer.echo)
    if failed:
        typer.echo(f"{failed} cells have no numbers; the page says why", err=True)
        raise typer.Exit(1)
