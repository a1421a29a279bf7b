"""Scenarios, data, engine, transport, results, report and the command line of the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.common.config import Scenario

BUILTIN_SCENARIOS = Path(__file__).parent / "scenarios"


def load_scenario(source: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Load a scenario by the name of a built-in one or by its path.

    See `common.config_file.load_scenario`, to which this adds only where the built-in ones are.
    """
    from shoal.common import config_file

    return config_file.load_scenario(source, overrides, builtin=BUILTIN_SCENARIOS)


if __name__ != "shoal.simulations":  # under a second name all of it would load twice
    raise ImportError("the package is shoal.simulations")
