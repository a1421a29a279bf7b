"""Steps shared by the loaders of data sources."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from shoal.common.config import DataConfig, Scenario
from shoal.common.errors import ConfigError, MissingPackageError, UnreadableDataError, nearest
from shoal.common.schema import Population
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import FileTable, lacking_columns
from shoal.simulations.datasets.labels import rows_with_label
from shoal.simulations.datasets.partition import partition
from shoal.simulations.datasets.raw import Raw
from shoal.simulations.datasets.table import build_table

Kind = Literal["numeric", "categorical"]


def spread(raw: Raw, scenario: Scenario) -> Population:
    """Divide a data set among clients as the scenario says."""
    table = build_table(raw, scenario.data, scenario.preprocessing.min_count)
    return partition(table, scenario.partition, scenario.seed)


def spread_table(
    found: FileTable, scenario: Scenario, *, site: str | None, where: Path | str, hint: str | None = None
) -> Population:
    """Turn a table into the population that the scenario asks for.

    Args:
        found: all rows, with the label and, where there are sites, the column `site`.
        scenario: names the columns; `data.args` may hold numeric and categorical, columns whose kind is
            decided by the user, and drop_missing_labels.
        where: what errors say about where the rows come from.
        hint: one more problem to name where a column is missing.

    Raises:
        ConfigError: a column that the scenario names is not there; UnreadableDataError: there are no rows.
    """
    data, table = scenario.data, found.table
    kinds = _kinds(data)
    _refuse_unknown(found, scenario, site, kinds, where, hint)
    if data.label is None:
        raise ConfigError("data.label: needs the name of the column to predict")
    if not table.num_rows:
        raise UnreadableDataError(f"{where} contains no rows")
    form = FileFormat.from_args(data.args)
    notes = list(found.notes)
    if data.args.get("drop_missing_labels", False):
        labelled = rows_with_label(table[data.label], form)
        table = table.filter(labelled)
        if dropped := len(labelled) - table.num_rows:
            notes.append(f'{dropped} of {len(labelled)} rows without a label in "{data.label}" were left out')
    raw = Raw(
        table,
        label=data.label,
        site=site,
        text=data.text_column,
        typed=found.typed,
        format=form,
        kinds={name: kind for kind, names in kinds.items() for name in names},
        where=str(where),
        notes=tuple(notes),
    )
    return spread(raw, scenario)


def _refuse_unknown(
    found: FileTable,
    scenario: Scenario,
    site: str | None,
    kinds: Mapping[Kind, Sequence[str]],
    where: Path | str,
    hint: str | None,
) -> None:
    """Refuse columns that the table lacks. Its own names are shown only if near: they may be a first row."""
    data, form = scenario.data, FileFormat.from_args(scenario.data.args)
    wanted = [
        ("label", data.label),
        ("client_column", site),
        ("text_column", data.text_column),
        *((f"args.{kind}", name) for kind, given in kinds.items() for name in given),
    ]
    problems = [
        f"data.{key}: {problem}"
        for key, name in wanted
        if name is not None
        for problem in lacking_columns(found, [name], form, where)
    ]
    if problems:
        raise ConfigError([*problems, hint] if hint is not None else problems)


def _kinds(data: DataConfig) -> dict[Kind, Sequence[str]]:
    kinds: dict[Kind, Sequence[str]] = {
        "numeric": data.args.get("numeric", []),
        "categorical": data.args.get("categorical", []),
    }
    problems = [
        f"data.args.{kind}: expected a list of column names"
        for kind, names in kinds.items()
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names)
    ]
    problems += [
        f'data.args: "{name}" is listed both as numeric and as categorical'
        for name in ([] if problems else kinds["numeric"])
        if name in kinds["categorical"]
    ]
    if not isinstance(data.args.get("drop_missing_labels", False), bool):
        problems.append("data.args.drop_missing_labels: expected true or false")
    if problems:
        raise ConfigError(problems)
    return kinds


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
