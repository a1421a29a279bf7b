"""The app that commands register with, and the arguments and options that several of them share."""

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
    help="""Train Keras models over many clients' private data: simulated by Ray, led by Flower.

\b
  shoal scenarios                         what there is to run
  shoal run medical-thyroid --compare     run one, and ask whether federating helped
  shoal run my.toml --set training.rounds=5
  shoal list                              the runs so far

`shoal COMMAND --help` shows examples of each command.""",
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name.")]
DirectoryOption = Annotated[
    Path, typer.Option("--directory", metavar="FOLDER", help="The folder that holds the run folders.")
]
