"""The entry point of the command line: `shoal`."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from shoal.common.environment import PROCESS
from shoal.common.errors import ShoalError

if TYPE_CHECKING:
    import typer


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the error class (see docs/errors.md)."""
    for name, value in PROCESS.items():
        os.environ.setdefault(name, value)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _app(given)(args=given, prog_name="shoal")
    except ShoalError as error:
        _fail(f"{type(error).__name__}: {error}\n\n{error.help}", error.exit_code)
    except Exception:
        sys.stdout.flush()
        traceback.print_exc()
        _fail("\nThis is a bug in shoal, or in a package or plug-in that it called. Please report it.", 1)


def _app(arguments: list[str]) -> typer.Typer:
    """Return the commands; `shoal client` has its own app, which loads nothing of the simulator."""
    if arguments[:1] == ["client"]:
        from shoal.clients.pilot.command import app as site

        return site
    from shoal.simulations.cli import app

    return app


def _fail(text: str, code: int) -> None:
    """Flush what was printed before the error, print the error, and exit."""
    sys.stdout.flush()
    print(text, file=sys.stderr)
    sys.exit(code)
