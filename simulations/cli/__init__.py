"""The commands of `shoal`. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

# In the order in which the help lists commands.
from shoal.simulations.cli import running, runs  # noqa: F401  importing them registers their commands

# isort: split
from shoal.simulations.cli import leakage, tables, timeline  # noqa: F401

# isort: split
from shoal.simulations.cli import audit, handover  # noqa: F401

# isort: split
from shoal.simulations.cli import pilot  # noqa: F401

# isort: split
from shoal.simulations.cli.options import app

__all__ = ["app"]
