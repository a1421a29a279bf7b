"""Data sources by name: built-in data sets, the user's own files, or the user's own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from common import errors
from common.config import Scenario
from common.errors import ConfigError
from common.schema import Population

# name → "module:function" that takes the scenario; a module is imported only when it is used
BUILT_IN: Final[dict[str, str]] = {
    "digits": "simulations.datasets.digits:load",
    "lending": "simulations.datasets.lending:load",
    "linear": "simulations.datasets.linear:load",
    "sentiment": "simulations.datasets.sentiment:load",
    "thyroid": "simulations.datasets.thyroid:load",
    "wearables": "simulations.datasets.wearables:load",
}
FILES: Final[dict[str, str]] = {
    "csv": "simulations.datasets.tables:load_csv",
    "parquet": "simulations.datasets.tables:load_parquet",
    "npz": "simulations.datasets.arrays:load_npz",
    "text": "simulations.datasets.folders:load_text",
    "images": "simulations.datasets.folders:load_images",
}
SOURCES: Final[dict[str, str]] = BUILT_IN | FILES
_OWN_FUNCTION: Final = "simulations.datasets.own:load"


def load_population(scenario: Scenario) -> Population:
    """Load a scenario's data and spread it over clients.

    Raises:
        ConfigError: the section is wrong; DataError: the data cannot be used.
    """
    problems = check(scenario)
    if problems:
        raise ConfigError(problems)
    return _loader(scenario.data.source)(scenario)


def check(scenario: Scenario) -> list[str]:
    """Return what is wrong with the data section, one line each, without loading anything."""
    data = scenario.data
    if ":" in data.source:
        return []
    if data.source not in SOURCES:
        return [f"data.source: {errors.unknown_name('data source', data.source, SOURCES)}"]
    if data.source in BUILT_IN:
        return []
    problems = []
    if data.path is None:
        problems.append(f'data.path: source "{data.source}" needs the path of your file or folder')
    if data.source in ("csv", "parquet") and data.label is None:
        problems.append(f'data.label: source "{data.source}" needs the name of the column to predict')
    return problems


def _loader(source: str) -> Callable[[Scenario], Population]:
    module, _, name = (SOURCES.get(source) or _OWN_FUNCTION).partition(":")
    found: Callable[[Scenario], Population] = getattr(importlib.import_module(module), name)
    return found
