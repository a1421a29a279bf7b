"""The console that commands print to."""

from __future__ import annotations

from rich.console import Console

_FILE_WIDTH = 140  # a file or a pipe has no width that columns should be cut to


def make_console() -> Console:
    """Return a console on the standard output, wide where that is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)
