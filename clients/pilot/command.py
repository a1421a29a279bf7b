"""`shoal client`: take part in a federation as one site. It imports neither server nor simulations."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated

import click
import typer

from shoal.common.cli_options import (
    CaOption,
    CertOption,
    InsecureOption,
    KeyOption,
    ScenarioArgument,
    SchemaOption,
    SetOption,
    tls_files,
)
from shoal.common.config import Scenario
from shoal.common.config.cross_checks import cross_problems, pilot_problems
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.common.printable import log_to_terminal

app = typer.Typer(name="shoal", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Keep the name of the command, which typer drops if there is only one."""


@app.command()
def client(
    scenario: ScenarioArgument,
    server: Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Address of the server.")],
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="This site's rows (CSV or Parquet).")],
    schema: SchemaOption,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of this client; only with --insecure.")
    ] = "",
    log: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Audit log, with an entry for each message received or sent."),
    ] = Path("messages.jsonl"),
    account: Annotated[
        Path | None,
        typer.Option(
            "--account",
            metavar="FILE",
            help="Privacy account of the people in the data, over all runs: give the same file for all data "
            "on them. DATA.privacy.jsonl by default.",
        ),
    ] = None,
    lifetime_epsilon: Annotated[
        float,
        typer.Option(
            "--lifetime-epsilon", min=0, metavar="E", help="Largest epsilon of that account, over all runs."
        ),
    ] = math.inf,
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to keep trying an unreachable server.")
    ] = 600.0,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            "--refuse",
            metavar="KIND",
            click_type=click.Choice(
                ["statistics", "train", "evaluate", "test", "local", "secure-train", "secure-vector"]
            ),
            help="Refuse messages of this kind; may be repeated.",
        ),
    ] = None,
    least_clients: Annotated[
        int,
        typer.Option(
            "--least-clients", min=1, metavar="N", help="Refuse to take part with fewer clients than this."
        ),
    ] = 1,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for confirmation before anything is sent.")] = False,
    insecure: InsecureOption = False,
    set_: SetOption = None,
) -> None:
    """Take part in a federation as one site, until the server ends it.

    \b
      shoal client my.toml --server fl.example.org:9443 --data north.csv --schema schema.json \\
        --ca ca.crt --cert north.crt --key north.key
    """
    files = tls_files(server, insecure, ca, cert, key)
    loaded = load_scenario(scenario, set_ or ())
    _refuse(loaded, scenario)
    log_to_terminal(logging.WARNING)
    logging.getLogger("shoal").setLevel(logging.INFO)

    from shoal.clients.kernel.account import account_of
    from shoal.clients.pilot.consent import Terms
    from shoal.clients.pilot.run import run_client
    from shoal.clients.pilot.site_data import load_site, read_schema
    from shoal.common.certificates import client_credentials

    spends = account_of(data) if account is None else account
    runs = 0

    def agree(statement: str) -> bool:
        nonlocal runs
        runs += 1
        typer.echo(f"\n{statement}\n\nEach message received or sent is recorded in {log}.\n")
        if runs > 1 and not ask:
            typer.echo("The server has started another run: start this command again to take part in it.")
            return False
        return not ask or typer.confirm("Take part?")

    agreed = read_schema(schema)
    shard = load_site(data, agreed, loaded)
    try:
        spends.touch()
    except OSError as error:
        raise ConfigError(
            f"{spends} cannot be written: {error.strerror}",
            hint="give the privacy account a file that this user can write: --account FILE",
        ) from None
    typer.echo(f"{data}: {shard.rows} rows; connecting to {server}")
    credentials = None if files is None else client_credentials(*files)
    root = run_client(
        loaded,
        agreed,
        shard,
        server,
        credentials,
        name=name if insecure else "",
        log=log,
        account=spends,
        lifetime_epsilon=lifetime_epsilon,
        patience_s=patience,
        terms=Terms(frozenset(refuse or ()), least_clients),
        agree=agree,
    )
    typer.echo(f"The server has finished. All messages are recorded in {log}, root hash {root}")


def _refuse(scenario: Scenario, source: str) -> None:
    """Raise if the scenario has problems.

    Raises:
        ConfigError: it lists all problems.
    """
    from shoal.common.models import scenario_problems

    problems = [*cross_problems(scenario), *scenario_problems(scenario), *pilot_problems(scenario)]
    if problems:
        raise ConfigError(problems, source=source)
