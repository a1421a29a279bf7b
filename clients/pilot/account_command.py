"""`shoal privacy`: what the people in a site's data have spent over all runs. Only the site resets it."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.common.errors import ConfigError

if TYPE_CHECKING:
    from shoal.common.privacy.charges import Charges

app = typer.Typer(
    name="privacy", help="The privacy account of a site's population, over all runs.", no_args_is_help=True
)
DataArgument = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="The site's data file, or its account (a file ending in .jsonl)."),
]


@app.command()
def account(data: DataArgument) -> None:
    """Show what a population has spent: epsilon over all runs, and uses without a guarantee.

    \b
      shoal privacy account north.csv
    """
    from shoal.clients.kernel.account import since_reset, spent_in

    path, charges = _charges(data)
    entries = since_reset(charges.entries)
    spent = spent_in(entries)
    typer.echo(f"{path}: runs: {spent.runs}, rounds of training: {spent.rounds}")
    for entry in charges.entries:
        if "reset" in entry:
            typer.echo(f"reset {entry['time']} by {entry['by']}: {entry['reset']}")
    if spent.epsilon:
        typer.echo(f"epsilon = {spent.epsilon:.4g} at delta = {spent.delta:g}, for each {spent.member}")
    if spent.in_clear:
        typer.echo(f"{spent.in_clear} answers without a guarantee (metrics, and all of runs without privacy)")
    if not entries:
        typer.echo("nothing is spent")


@app.command()
def reset(
    data: DataArgument,
    reason: Annotated[str, typer.Option("--reason", help="Recorded in the account, with time and user.")],
) -> None:
    """Start an account anew, e.g. because the data are now of other people. The old entries stay in the file.

    \b
      shoal privacy reset north.csv --reason "patients of 2027, none of whom was in the data before"
    """
    from shoal.common.journal import now

    path, charges = _charges(data)
    if not reason.strip():
        raise ConfigError("--reason must say why the account starts anew")
    charges.add({"time": now(), "by": getpass.getuser(), "reset": reason})
    typer.echo(f"{path}: starts anew; {len(charges.entries) - 1} older entries stay in the file")


def _charges(data: Path) -> tuple[Path, Charges]:
    from shoal.clients.kernel.account import account_of
    from shoal.common.privacy.charges import Charges

    path = data if data.suffix == ".jsonl" else account_of(data)
    if not path.exists():
        raise ConfigError(
            f"{path}: no such account",
            hint="a site's account is made when it first takes part (`shoal client --account FILE`)",
        )
    return path, Charges(path)
