"""The entry point of the command line: `shoal`."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from shoal.common.environment import PROCESS
from shoal.common.errors import ShoalError, StorageError
from shoal.common.printable import printable

if TYPE_CHECKING:
    import typer

SHOW_VALUES = "SHOAL_SHOW_VALUES"  # for the owner of the data, to debug code of their own
_LONGEST_NAME = 120  # characters of a file name that are shown
_HANDLES_DATA = (
    "/common/tabular/",
    "/common/preprocessing/",
    "/simulations/datasets/",
    "/simulations/predict.py",
    "/clients/",
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the error class (see docs/errors.md)."""
    for name, value in PROCESS.items():
        os.environ.setdefault(name, value)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _app(given)(args=given, prog_name="shoal")
    except ShoalError as error:
        _fail(f"{type(error).__name__}: {error}\n\n{error.help}", error.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            # A disk, a permission, a name that is too long: whatever file it is, it is not a bug.
            name = str(error.filename)
            shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
            _fail(f"StorageError: {shown} cannot be used: {error.strerror}", StorageError.exit_code)
        sys.stdout.flush()
        print("".join(_traceback(error)), end="", file=sys.stderr)
        _fail("\nThis is a bug in shoal, or in a package or plug-in that it called. Please report it.", 1)


def _traceback(error: BaseException) -> list[str]:
    """Return the traceback of an unexpected error, without its text if it was raised while data was handled.

    Libraries quote values: "could not convert string to float: '…'". Types and lines of code remain.
    """
    whole = traceback.TracebackException.from_exception(error)
    if os.environ.get(SHOW_VALUES) == "1" or not _handled_data(whole):
        return list(whole.format())
    hidden = f"{type(error).__name__}: text hidden, since it may quote a value; {SHOW_VALUES}=1 shows it\n"
    return ["Traceback (most recent call last):\n", *whole.stack.format(), hidden]


def _handled_data(error: traceback.TracebackException | None) -> bool:
    if error is None:
        return False
    files = (frame.filename.replace(os.sep, "/") for frame in error.stack)
    return (
        any(part in file for file in files for part in _HANDLES_DATA)
        or _handled_data(error.__cause__)
        or _handled_data(error.__context__)
    )


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
    # An error may quote names in data, whose control characters a terminal would obey.
    print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr)
    sys.exit(code)
