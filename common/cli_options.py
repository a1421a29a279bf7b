"""Arguments and options of the command line that the site's command and the simulator's share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.common.errors import ConfigError

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a built-in scenario.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key of the scenario; may be repeated. docs/config.md lists the keys.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="Certificate of the authority that both sides trust."),
]
CertOption = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Certificate of this side.")]
KeyOption = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Private key of this side.")]
SchemaOption = Annotated[
    Path, typer.Option("--schema", metavar="FILE", help="The schema.json that all sites have agreed on.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No TLS and no certificates; on 127.0.0.1 only, to try things out.")
]


def tls_files(
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
