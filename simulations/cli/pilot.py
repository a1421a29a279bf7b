"""The commands of a pilot over a network: serve, certs and split; and client, which a site runs."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from shoal.clients.pilot.account_command import app as privacy
from shoal.clients.pilot.command import client
from shoal.clients.pilot.enrolment import enrol
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
from shoal.common.printable import log_to_terminal
from shoal.simulations.cli.audit import print_root
from shoal.simulations.cli.options import app
from shoal.simulations.cli.running import load_valid


@app.command()
def serve(
    scenario: ScenarioArgument,
    schema: SchemaOption,
    client: Annotated[
        list[str],
        typer.Option("--client", metavar="NAME", help="A client that may take part; repeat for each."),
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address to listen on.")
    ] = "127.0.0.1:9443",
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    crl: Annotated[
        Path | None,
        typer.Option("--crl", metavar="FILE", help="Certificate revocation list; reloaded when it changes."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long to wait for all clients before the first round."
        ),
    ] = 600.0,
    patience: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long to wait for a client that lost its connection."
        ),
    ] = 60.0,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Resume this run from its last checkpoint.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Expose Prometheus metrics on this address.")
    ] = "",
    insecure: InsecureOption = False,
    set_: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path of the report.")] = False,
) -> None:
    """Run a scenario with clients that connect over the network and keep their rows.

    \b
      shoal serve my.toml --schema schema.json --client north --client south --listen 0.0.0.0:9443 \\
        --ca ca.crt --cert server.crt --key server.key
      shoal serve my.toml --schema schema.json --client north --client south --insecure
    """
    files = tls_files(listen, insecure, ca, cert, key)
    loaded = load_valid(scenario, set_, pilot=True)
    log_to_terminal(logging.WARNING)

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
        print_root(folder)


app.command()(client)
app.add_typer(privacy)


@app.command()
def certs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write the certificate authority and all keys.")
    ],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="Host name or address of the server; may be repeated."),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="NAME", help="Name of a client; may be repeated.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, metavar="N", help="Validity of the certificates in days.")
    ] = 365,
    sign: Annotated[
        list[Path] | None,
        typer.Option("--sign", metavar="FILE", help="Sign a request (`shoal enrol`); may be repeated."),
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", metavar="NAME", help="Revoke a client's certificates; may be repeated."),
    ] = None,
) -> None:
    """Create a certificate authority and certificates for a pilot, or add and revoke clients.

    \b
      shoal certs keys --host fl.example.org --client north --client south
      shoal certs keys --sign west.csr
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
    for path in sign or ():
        name = certificates.sign(folder, path, days)
        typer.echo(f"{folder / name}.crt: give it, and {AUTHORITY}.crt, to {name}, whose key stays there")
    for name in revoke or ():
        number = certificates.revoke(folder, name)
        typer.echo(
            f"{folder / AUTHORITY}.crl: {name} is revoked ({number} certificates); a server with --crl "
            "disconnects it"
        )
    if client:
        typer.echo(
            f"{folder}: give each client {AUTHORITY}.crt and its own .crt and .key; never give anyone "
            f"{AUTHORITY}.key. For keys that never leave their site, use `shoal enrol` there"
        )


app.command()(enrol)


@app.command()
def split(
    scenario: ScenarioArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write schema.json and the CSV files.")
    ],
    set_: SetOption = None,
) -> None:
    """Write each simulated client's rows to a CSV file, to rehearse a pilot.

    \b
      shoal split medical-thyroid sites
    """
    from shoal.common.tabular.file_format import FileFormat
    from shoal.simulations import datasets
    from shoal.simulations.datasets.site_files import write_sites

    loaded = load_valid(scenario, set_)
    form = FileFormat.from_args(loaded.data.args)
    written = write_sites(datasets.load_population(loaded), folder, form)
    typer.echo("\n".join(map(str, [folder / "schema.json", *written])))
