"""The command that checks audit logs: audit verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.common.errors import IntegrityError
from shoal.simulations.cli.options import DirectoryOption, app

if TYPE_CHECKING:
    from shoal.common.audit.check import Chain, Differences

_MAX_LISTED = 20  # messages

audit = typer.Typer(name="audit", no_args_is_help=True, help="Check audit logs.")
app.add_typer(audit)


@audit.callback()
def _group() -> None:
    """Check audit logs."""


@audit.command()
def verify(
    log: Annotated[
        str, typer.Argument(metavar="FILE|RUN", help="An audit log, or a run folder that contains one.")
    ],
    root: Annotated[
        str,
        typer.Option(
            metavar="HASH", help="A root hash noted earlier; everything up to it must be unchanged."
        ),
    ] = "",
    against: Annotated[
        str, typer.Option(metavar="FILE|RUN", help="The other side's log, to compare each message.")
    ] = "",
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Accept a log without a final entry, e.g. of a running process."),
    ] = False,
    directory: DirectoryOption = Path("runs"),
) -> None:
    """Check that no entry of an audit log was changed, removed or reordered, and that its end is there.

    \b
      shoal audit verify medical-thyroid-20260101-120000
      shoal audit verify messages.jsonl --root 3b1f…
      shoal audit verify runs/medical-thyroid-20260101-120000 --against SVI.jsonl
    """
    from shoal.common.audit.check import compare

    chain = _read(log, directory)
    _print_summary(chain)
    chain.require_whole()
    if root:
        after = chain.since(root)
        typer.echo(
            f"the given root is {'the last entry' if not after else f'{after} entries before the end'}"
        )
    if against:
        other = _read(against, directory)
        _print_summary(other)
        _print_comparison(compare(chain, other.require_whole()))
    for one in [chain, *([other] if against else [])]:
        if not one.ended and not unfinished:
            raise IntegrityError(
                f"{one.path} has no final entry: its process was killed or is still running, or its end was "
                "cut off",
                hint="--unfinished accepts that; --root HASH, noted earlier, shows whether an end is missing",
            )


def print_root(folder: Path) -> None:
    """Print the root hash of a run's audit log, for the operator to note elsewhere."""
    from shoal.common.audit.check import read_chain
    from shoal.common.audit.log import AUDIT_LOG

    typer.echo(f"Audit log: {folder / AUDIT_LOG}, root hash {read_chain(folder / AUDIT_LOG).root}")


def _read(log: str, directory: Path) -> Chain:
    from shoal.common.audit.check import read_chain
    from shoal.common.audit.log import AUDIT_LOG
    from shoal.simulations.results import RunFolder

    path = Path(log)
    return read_chain(path if path.is_file() else RunFolder.open(log, directory).path / AUDIT_LOG)


def _print_summary(chain: Chain) -> None:
    typer.echo(f"{chain.path}: {len(chain.entries)} entries, {len(chain.messages())} of them messages")
    if chain.entries:
        typer.echo(f"  from {chain.entries[0]['time']} to {chain.entries[-1]['time']}")
        typer.echo(f"  root {chain.root}")
    if chain.fault is None and not chain.ended:
        typer.echo("  no final entry")


def _print_comparison(found: Differences) -> None:
    typer.echo(f"{found.agreeing} messages are in both logs")
    if found.others:
        typer.echo(f"{found.others} messages of other runs in the client's log were not compared")
    for what, lost in (
        ("received but never sent", found.unsent),
        ("sent but never received", found.unreceived),
    ):
        for chain, entry in lost[:_MAX_LISTED]:
            typer.echo(
                f"  {what}: {chain.path}, line {entry['number'] + 1}: {entry['purpose']}, "
                f"{entry['bytes']} bytes, SHA-256 {entry['sha256']}"
            )
    missing = len(found.unsent) + len(found.unreceived)
    if missing:
        raise IntegrityError(
            f"{missing} messages are in one log only",
            hint="a message that was sent but never received may have been lost with its connection; "
            "one that was received must have been sent",
        )
