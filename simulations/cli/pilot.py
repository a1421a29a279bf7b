"""The commands of a pilot over a network: serve, client, certs, split."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import click
import typer

from shoal.common.errors import ConfigError
from shoal.simulations.cli.audit import tell_root
from shoal.simulations.cli.options import ScenarioArgument, SetOption, app
from shoal.simulations.cli.running import load_valid

CaOption = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="Certificate of the authority both trust."),
]
CertOption = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Certificate of this side.")]
KeyOption = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its private key.")]
SchemaOption = Annotated[
    Path, typer.Option("--schema", metavar="FILE", help="The schema.json that all sites have agreed on.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No TLS and no certificates; on 127.0.0.1 only, to try things out.")
]


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
    files = _files(listen, insecure, ca, cert, key)
    loaded = load_valid(scenario, set_, pilot=True)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)

    from shoal.simulations.datasets.site import read_schema
    from shoal.simulations.progress import Progress
    from shoal.simulations.results import RunFolder
    from shoal.simulations.transport.certificates import Revocations, server_credentials
    from shoal.simulations.transport.pilot import run_server
    from shoal.simulations.transport.server import Policy

    credentials = None if files is None else server_credentials(*files)
    revocations = None if crl is None or files is None else Revocations(files[0], crl)
    policy = Policy(client, revocations, patience_s=patience, insecure=insecure)
    agreed = read_schema(schema)
    before = None if resume is None else RunFolder.open(resume)
    with ExitStack() as closing:
        observers = [] if quiet else [closing.enter_context(Progress(loaded))]
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


@app.command("client")
def client_(
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
    files = _files(server, insecure, ca, cert, key)
    loaded = load_valid(scenario, set_, pilot=True)
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("shoal").setLevel(logging.INFO)

    from shoal.simulations.datasets.site import load_site, read_schema
    from shoal.simulations.transport.certificates import client_credentials
    from shoal.simulations.transport.consent import Terms
    from shoal.simulations.transport.pilot import run_client

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
    from shoal.simulations.transport import certificates
    from shoal.simulations.transport.certificates import AUTHORITY, issue, make_authority

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
    from shoal.simulations.datasets.site import write_sites

    written = write_sites(datasets.load_population(load_valid(scenario, set_)), folder)
    typer.echo("\n".join(map(str, [folder / "schema.json", *written])))


def _files(
    address: str, insecure: bool, ca: Path | None, cert: Path | None, key: Path | None
) -> tuple[Path, Path, Path] | None:
    """Return the files of TLS, or `None` for none.

    Raises:
        ConfigError: they are missing, or plain text would leave this machine.
    """
    if insecure:
        if address.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
            raise ConfigError(
                f"--insecure is for 127.0.0.1 only, not {address}", hint="make keys: shoal certs"
            )
        return None
    if ca is None or cert is None or key is None:
        raise ConfigError("--ca, --cert and --key are needed", hint="`shoal certs` makes them for a pilot")
    return ca, cert, key
