"""The console that commands print to."""

from __future__ import annotations

from rich.console import Console

_FILE_WIDTH = 140  # for files and pipes, which have no width of their own


def make_console() -> Console:
    """Return a console on the standard output; wide if that is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)
