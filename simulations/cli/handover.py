"""The command that writes and checks bundles: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.common.errors import RunError
from shoal.simulations.cli.options import DirectoryOption, app

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@app.command()
def export(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run folder, or the name of a run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The zip to write; default: RUN.zip in the current directory."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sign with this private key (Ed25519, PEM).")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Create a key, sign with it, and write FILE.pub for the recipients."
        ),
    ] = None,
    intended_use: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Markdown for the model card that says what the model is for."),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check this bundle instead of writing one.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --verify: the key that must have signed the bundle."),
    ] = None,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Write a finished run as a signed bundle to hand over, or check a bundle you received.

    \b
      shoal export medical-thyroid-20260101-120000 --new-key operator.key
      shoal export medical-thyroid-20260101-120000 --key operator.key --out thyroid.zip
      shoal export --verify thyroid.zip --public-key operator.key.pub
    """
    if (run is None) == (verify is None):
        raise typer.BadParameter("give either a RUN to export or a bundle to --verify", param_hint="RUN")
    if verify is not None:
        _verify(verify, public_key)
    elif run is not None:
        _export(run, directory, out, key, new_key, intended_use)


def _export(
    name: str, directory: Path, out: Path | None, key: Path | None, new_key: Path | None, use: Path | None
) -> None:
    from shoal.simulations.handover import write_bundle
    from shoal.simulations.handover.signing import fingerprint
    from shoal.simulations.results import RunFolder

    if key is not None and new_key is not None:
        raise typer.BadParameter("use either --key or --new-key, not both", param_hint="--new-key")
    run = RunFolder.open(name, directory)
    path = Path(f"{run.name}.zip") if out is None else out
    try:
        intended = None if use is None else use.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {use}: {error}") from error
    signer = _key(key, new_key)
    write_bundle(run, path, signer, intended)
    if signer is None:
        typer.echo(f"{path}: not signed; use --key or --new-key to sign it")
    else:
        typer.echo(f"{path}: signed with the key {fingerprint(signer.public_key())}")
    if intended is None:
        typer.echo("The model card does not state an intended use; add it with --intended-use FILE.")


def _key(key: Path | None, new_key: Path | None) -> Ed25519PrivateKey | None:
    from shoal.simulations.handover import signing

    if new_key is not None:
        made = signing.new_key(new_key)
        typer.echo(f"{new_key}: private key, keep it secret; {new_key}.pub: public key, for the recipients")
        return made
    return None if key is None else signing.read_key(key)


def _verify(path: Path, public_key: Path | None) -> None:
    from shoal.simulations.handover import check_bundle

    found = check_bundle(path, public_key)
    typer.echo(f"{path}: all {len(found.files)} files are unchanged")
    if not found.signer:
        typer.echo("It is not signed, so this check detects damage but not forgery.")
    elif found.known:
        typer.echo(f"It is signed with the expected key, {found.signer}.")
    else:
        typer.echo(
            f"It is signed with the key {found.signer}. The bundle cannot prove whose key that is: compare "
            "it with the fingerprint the operator gave you, or use --public-key."
        )
