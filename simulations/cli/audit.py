"""The commands that check audit logs: audit verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.common.errors import IntegrityError
from shoal.simulations.cli.options import DirectoryOption, app

if TYPE_CHECKING:
    from shoal.common.audit.check import Chain, Differences

_MOST_TOLD = 20  # messages that are listed

audit = typer.Typer(name="audit", no_args_is_help=True, help="Check the logs of who was sent what.")
app.add_typer(audit)


@audit.callback()
def _group() -> None:
    """Check the logs of who was sent what."""


@audit.command()
def verify(
    log: Annotated[
        str, typer.Argument(metavar="FILE|RUN", help="An audit log, or a run folder that holds one.")
    ],
    root: Annotated[
        str, typer.Option(metavar="HASH", help="Root that was noted: all up to it must be as it was.")
    ] = "",
    against: Annotated[
        str, typer.Option(metavar="FILE|RUN", help="The other side's log, to compare message by message.")
    ] = "",
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Check that nothing in an audit log was changed, removed or put in another order.

    \b
      shoal audit verify medical-thyroid-20260101-120000
      shoal audit verify messages.jsonl --root 3b1f…
      shoal audit verify runs/medical-thyroid-20260101-120000 --against SVI.jsonl
    """
    from shoal.common.audit.check import compare

    chain = _read(log, directory)
    _tell(chain)
    chain.require_whole()
    if root:
        after = chain.since(root)
        typer.echo(
            f"the noted root is {'the last entry' if not after else f'{after} entries before the end'}"
        )
    if against:
        other = _read(against, directory)
        _tell(other)
        _compared(compare(chain, other.require_whole()))


def tell_root(folder: Path) -> None:
    """Print the root of a run's audit log, for the operator to note elsewhere."""
    from shoal.common.audit.check import read_chain
    from shoal.common.audit.log import AUDIT_LOG

    typer.echo(f"Audit log: {folder / AUDIT_LOG}, with the root {read_chain(folder / AUDIT_LOG).root}")


def _read(log: str, directory: Path) -> Chain:
    from shoal.common.audit.check import read_chain
    from shoal.common.audit.log import AUDIT_LOG
    from shoal.simulations.results import RunFolder

    path = Path(log)
    return read_chain(path if path.is_file() else RunFolder.open(log, directory).path / AUDIT_LOG)


def _tell(chain: Chain) -> None:
    typer.echo(f"{chain.path}: {len(chain.entries)} entries, {len(chain.messages())} of them messages")
    if chain.entries:
        typer.echo(f"  from {chain.entries[0]['time']} to {chain.entries[-1]['time']}")
        typer.echo(f"  root {chain.root}")
    if chain.fault is None and not chain.ended:
        typer.echo("  no end: its process was killed, is still running, or the end was cut off")


def _compared(found: Differences) -> None:
    typer.echo(f"{found.agreeing} messages are in both logs")
    for what, lost in (
        ("received, but never sent", found.unsent),
        ("sent, but never received", found.unreceived),
    ):
        for chain, entry in lost[:_MOST_TOLD]:
            typer.echo(
                f"  {what}: {chain.path}, line {entry['number'] + 1}: {entry['purpose']}, "
                f"{entry['bytes']} bytes, SHA-256 {entry['sha256']}"
            )
    missing = len(found.unsent) + len(found.unreceived)
    if missing:
        raise IntegrityError(
            f"{missing} messages are in one log only",
            hint="what was sent but never received may have been lost with a connection or a killed process; "
            "what was received must have been sent",
        )
