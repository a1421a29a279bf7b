"""The app that commands register with, and the arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="shoal",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",  # typer escapes brackets for rich even in plain help
    pretty_exceptions_enable=False,
    help="""Train Keras models over many clients' private data, simulated on Ray and coordinated by Flower.

\b
  shoal scenarios                         list the built-in scenarios
  shoal run medical-thyroid --compare     run one, and compare it with baselines
  shoal run my.toml --set training.rounds=5
  shoal list                              list the runs

`shoal COMMAND --help` shows examples.""",
)


def print_version(asked: bool = True) -> None:
    """Print the version and leave, if asked."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"shoal {version('shoal')}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of a run.")]
# With the default "", which RunFolder.open understands.
LatestArgument = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]", help="A run folder, or the name of a run; default: the latest.", show_default=False
    ),
]
DirectoryOption = Annotated[
    Path, typer.Option("--directory", metavar="FOLDER", help="The directory that contains the run folders.")
]
