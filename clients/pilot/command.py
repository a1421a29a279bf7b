"""`shoal client`: takes part in a federation as one site. It imports neither server nor simulations."""

from __future__ import annotations

import logging
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

app = typer.Typer(name="shoal", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Keep the command's name: typer drops it where there is a single command."""


@app.command()
def client(
    scenario: ScenarioArgument,
    server: Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where the server listens.")],
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="This site's rows, CSV or Parquet.")],
    schema: SchemaOption,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Who we are; only with --insecure.")] = "",
    log: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Audit log: an entry for each message that comes or leaves."),
    ] = Path("messages.jsonl"),
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long a server that is away is tried.")
    ] = 600.0,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            "--refuse",
            metavar="KIND",
            click_type=click.Choice(
                ["statistics", "train", "evaluate", "test", "local", "secure-train", "secure-vector"]
            ),
            help="Do not answer this kind of message; may be repeated.",
        ),
    ] = None,
    least_clients: Annotated[
        int, typer.Option("--least-clients", min=1, metavar="N", help="Take no part among fewer clients.")
    ] = 1,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the operator before anything leaves.")] = False,
    insecure: InsecureOption = False,
    set_: SetOption = None,
) -> None:
    """Take part in a federation as one site, until the server says goodbye.

    \b
      shoal client my.toml --server fl.example.org:9443 --data north.csv --schema schema.json \\
        --ca ca.crt --cert north.crt --key north.key
    """
    files = tls_files(server, insecure, ca, cert, key)
    loaded = load_scenario(scenario, set_ or ())
    _refuse(loaded, scenario)
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("shoal").setLevel(logging.INFO)

    from shoal.clients.pilot.consent import Terms
    from shoal.clients.pilot.run import run_client
    from shoal.clients.pilot.site_data import load_site, read_schema
    from shoal.common.certificates import client_credentials

    def agree(statement: str) -> bool:
        typer.echo(f"\n{statement}\n\nEach message that comes or leaves is noted in {log}.\n")
        return not ask or typer.confirm("Take part?")

    agreed = read_schema(schema)
    shard = load_site(data, agreed, loaded)
    typer.echo(f"{data}: {shard.rows} rows; dialling {server}")
    credentials = None if files is None else client_credentials(*files)
    root = run_client(
        loaded,
        agreed,
        shard,
        server,
        credentials,
        name=name if insecure else "",
        log=log,
        patience_s=patience,
        terms=Terms(frozenset(refuse or ()), least_clients),
        agree=agree,
    )
    typer.echo(f"The server is done. What came and left: {log}, with the root {root}")


def _refuse(scenario: Scenario, source: str) -> None:
    """Refuse a scenario that is wrong in itself.

    Raises:
        ConfigError: with all its problems.
    """
    from shoal.common.models import scenario_problems

    problems = [*cross_problems(scenario), *scenario_problems(scenario), *pilot_problems(scenario)]
    if problems:
        raise ConfigError(problems, source=source)
