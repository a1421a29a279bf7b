"""The commands of a pilot over a network: serve, certs, split; and client, which is the site's own."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from shoal.clients.pilot.command import client
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
from shoal.simulations.cli.audit import tell_root
from shoal.simulations.cli.options import app
from shoal.simulations.cli.running import load_valid


@app.command()
def serve(
    scenario: ScenarioArgument,
    schema: SchemaOption,
    client: Annotated[
        list[str], typer.Option("--client", metavar="NAME", help="A client that may take part; repeat it.")
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:9443",
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    crl: Annotated[
        Path | None,
        typer.Option(
            "--crl", metavar="FILE", help="The authority's revocation list; read again when it changes."
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for all clients at the start.")
    ] = 600.0,
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long the tasks of a lost client wait for it.")
    ] = 60.0,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with this run after its last checkpoint.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Answer Prometheus there, over HTTP.")
    ] = "",
    insecure: InsecureOption = False,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only where the report is.")] = False,
) -> None:
    """Run a scenario over clients that dial in from elsewhere; their rows stay with them.

    \b
      shoal serve my.toml --schema schema.json --client north --client south --listen 0.0.0.0:9443 \\
        --ca ca.crt --cert server.crt --key server.key
      shoal serve my.toml --schema schema.json --client north --client south --insecure
    """
    files = tls_files(listen, insecure, ca, cert, key)
    loaded = load_valid(scenario, set_, pilot=True)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)

    from shoal.clients.pilot.site_data import read_schema
    from shoal.common.certificates import Revocations, server_credentials
    from shoal.server.pilot.grpc_server import Policy
    from shoal.simulations.pilot_server import run_server
    from shoal.simulations.progress import ProgressDisplay
    from shoal.simulations.results import RunFolder

    credentials = None if files is None else server_credentials(*files)
    revocations = None if crl is None or files is None else Revocations(files[0], crl)
    policy = Policy(client, revocations, patience_s=patience, insecure=insecure)
    agreed = read_schema(schema)
    before = None if resume is None else RunFolder.open(resume)
    with ExitStack() as closing:
        observers = [] if quiet else [closing.enter_context(ProgressDisplay(loaded))]
        folder = run_server(
            loaded,
            agreed,
            listen,
            credentials,
            policy,
            wait_s=wait,
            observers=observers,
            resume=before,
            metrics=metrics,
            say=(lambda text: None) if quiet else typer.echo,
        )
    typer.echo(f"Report: {folder / 'report.html'}")
    if not quiet:
        tell_root(folder)


app.command()(client)


@app.command()
def certs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Gets the authority and all keys.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="Name or address of the server; may be repeated."),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="NAME", help="A client; may be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days that the certificates are valid.")] = 365,
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", metavar="NAME", help="A client whose certificate counts no more."),
    ] = None,
) -> None:
    """Make a small authority and certificates for a pilot; called again, it adds and revokes clients.

    \b
      shoal certs keys --host fl.example.org --client north --client south
      shoal certs keys --client west
      shoal certs keys --revoke south
    """
    from shoal.common import certificates
    from shoal.common.certificates import AUTHORITY, issue, make_authority

    if not (folder / f"{AUTHORITY}.key").exists():
        make_authority(folder)
    if host:
        issue(folder, "server", hosts=host, days=days)
    for name in client or ():
        issue(folder, name, days=days)
    for name in revoke or ():
        certificates.revoke(folder, name)
        typer.echo(f"{folder / AUTHORITY}.crl: the server that reads it puts {name} out")
    typer.echo(
        f"{folder}: each client gets {AUTHORITY}.crt and its own .crt and .key; nobody {AUTHORITY}.key"
    )


@app.command()
def split(
    scenario: ScenarioArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Gets schema.json and the CSV files.")],
    set_: SetOption = None,
) -> None:
    """Write the clients of a simulation as files, to rehearse a pilot with.

    \b
      shoal split medical-thyroid sites
    """
    from shoal.simulations import datasets
    from shoal.simulations.datasets.site_files import write_sites

    written = write_sites(datasets.load_population(load_valid(scenario, set_)), folder)
    typer.echo("\n".join(map(str, [folder / "schema.json", *written])))
