"""The command that hands a run over: export."""

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
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run folder, or its name.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The zip to write; by default RUN.zip, here.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The operator's private key, Ed25519 in PEM, to sign.")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make that key first, and FILE.pub for those who check."),
    ] = None,
    intended_use: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Markdown that says in the model card what the model is for."),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check this bundle instead of writing one.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --verify: the key that it must be signed with.")
    ] = None,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Write a finished run as a signed bundle to hand over, or check one that was received.

    \b
      shoal export medical-thyroid-20260101-120000 --new-key operator.key
      shoal export medical-thyroid-20260101-120000 --key operator.key --out thyroid.zip
      shoal export --verify thyroid.zip --public-key operator.key.pub
    """
    if (run is None) == (verify is None):
        raise typer.BadParameter("name a RUN to export, or a bundle to --verify", param_hint="RUN")
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
        raise typer.BadParameter("--key and --new-key do not go together", param_hint="--new-key")
    run = RunFolder.open(name, directory)
    path = Path(f"{run.name}.zip") if out is None else out
    try:
        intended = None if use is None else use.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {use}: {error}") from error
    signer = _key(key, new_key)
    write_bundle(run, path, signer, intended)
    if signer is None:
        typer.echo(f"{path}: not signed; --key or --new-key signs it")
    else:
        typer.echo(f"{path}: signed with the key {fingerprint(signer.public_key())}")
    if intended is None:
        typer.echo("The model card says that its intended use is open: --intended-use FILE fills it in.")


def _key(key: Path | None, new_key: Path | None) -> Ed25519PrivateKey | None:
    from shoal.simulations.handover import signing

    if new_key is not None:
        made = signing.new_key(new_key)
        typer.echo(f"{new_key}: the private key, to keep; {new_key}.pub: for those who check")
        return made
    return None if key is None else signing.read_key(key)


def _verify(path: Path, public_key: Path | None) -> None:
    from shoal.simulations.handover import check_bundle

    found = check_bundle(path, public_key)
    typer.echo(f"{path}: all {len(found.files)} files are as they were")
    if not found.signer:
        typer.echo("It is not signed: this shows damage, not forgery.")
    elif found.known:
        typer.echo(f"It is signed with the expected key, {found.signer}.")
    else:
        typer.echo(
            f"It is signed with the key {found.signer}. Whose that is, the bundle cannot say: compare it "
            "with what the operator told you, or use --public-key."
        )
