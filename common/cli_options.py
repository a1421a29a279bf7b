"""Command-line arguments and options shared by `shoal client` and the simulator's commands."""

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
        help="Set a key of the scenario (docs/config.md lists them); may be repeated.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="FILE", help="Certificate of the certificate authority that both sides trust."
    ),
]
CertOption = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Certificate of this side.")]
KeyOption = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Private key of this side.")]
SchemaOption = Annotated[
    Path, typer.Option("--schema", metavar="FILE", help="The schema.json that all sites agreed on.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No TLS and no certificates; for tests on 127.0.0.1 only.")
]


def tls_files(
    address: str, insecure: bool, ca: Path | None, cert: Path | None, key: Path | None
) -> tuple[Path, Path, Path] | None:
    """Return the CA, certificate and key files, or `None` without TLS.

    Raises:
        ConfigError: no address, a file is not given, or unencrypted messages would leave this machine.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        raise ConfigError(f"expected HOST:PORT, as in fl.example.org:9443, got {address}")
    if insecure:
        if host not in ("127.0.0.1", "localhost", "[::1]"):
            raise ConfigError(
                f"--insecure works on 127.0.0.1 only, not {address}",
                hint="use TLS: `shoal certs` creates certificates and keys for a pilot",
            )
        return None
    if ca is None or cert is None or key is None:
        raise ConfigError(
            "--ca, --cert and --key are required", hint="`shoal certs` creates them for a pilot"
        )
    return ca, cert, key
