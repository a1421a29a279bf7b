"""`shoal enrol`: a site makes its own private key, and a request for a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def enrol(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of this site, as on the server's list.")],
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="Where to write the key and the request.")
    ] = Path(),
) -> None:
    """Make this site's private key, which stays here, and a request that the pilot's operator signs.

    \b
      shoal enrol north                            # at the site: north.key and north.csr
      shoal certs keys --sign north.csr            # at the operator: keys/north.crt
    """
    from shoal.common.certificates import AUTHORITY, request

    path = request(folder, name)
    typer.echo(
        f"{path}: send it to the pilot's operator, who sends back {name}.crt and {AUTHORITY}.crt; "
        f"{path.with_suffix('.key')} stays here"
    )
