"""The command line: `shoal`. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from shoal.common.errors import ShoalError

# In the order in which the help lists commands.
from shoal.simulations.cli import running, runs  # noqa: F401  importing them registers their commands

# isort: split
from shoal.simulations.cli import leakage, tables  # noqa: F401

# isort: split
from shoal.simulations.cli import audit, handover  # noqa: F401

# isort: split
from shoal.simulations.cli import pilot  # noqa: F401

# isort: split
from shoal.simulations.cli.options import app
from shoal.simulations.engine.environment import QUIET

__all__ = ["ENVIRONMENT", "app", "main"]

# Each holds only where the user has not set it.
ENVIRONMENT = QUIET | {
    # Leave CUDA_VISIBLE_DEVICES as it is for workers without a GPU, which Ray otherwise warns about.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "KERAS_BACKEND": "tensorflow",
    "GRPC_VERBOSITY": "ERROR",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the error class (see docs/errors.md)."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        app(args=arguments, prog_name="shoal")
    except ShoalError as error:
        _flush()
        typer.echo(f"{type(error).__name__}: {error}\n\n{error.help}", err=True)
        sys.exit(error.exit_code)
    except Exception:
        _flush()
        traceback.print_exc()
        typer.echo("\nThis is a fault in shoal, or in a package or plug-in that it called.", err=True)
        sys.exit(1)


def _flush() -> None:
    """Let what was printed before an error stand before it."""
    sys.stdout.flush()
