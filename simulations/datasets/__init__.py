"""Data sources by name: built-in data sets, the user's own files, or the user's own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shoal.common import errors
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, DataError
from shoal.common.plugins import form_problems, is_users_own
from shoal.common.printable import problems_of_names
from shoal.common.schema import Population
from shoal.common.tabular.file_format import FORMAT_ARGUMENTS


@dataclass(frozen=True, slots=True)
class Source:
    """A data source.

    Attributes:
        loader: "module:function" that takes the scenario; the module is imported on first use.
        summary: one line for lists.
        keys: the keys of the data section that it reads, of those in `_OPTIONAL_KEYS`.
        args: the names allowed in data.args.
        extra: the optional extra of this project that installs the data; `None` if the data are built in.
    """

    loader: str
    summary: str
    keys: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    extra: str | None = None


_OPTIONAL_KEYS: Final = ("path", "client_column", "label", "text_column", "include", "exclude")
_MOST_NAMED: Final = 10_000  # clients whose names are read before a run; more have generated names
_MOST_LISTED: Final = 10
_COLUMNS: Final = ("include", "exclude")
_DECISIONS: Final = ("numeric", "categorical", "drop_missing_labels")

BUILT_IN: Final[dict[str, Source]] = {
    "digits": Source(
        "shoal.simulations.datasets.digits:load", "1,797 handwritten digits of 8 x 8 pixels, without sites"
    ),
    "lending": Source(
        "shoal.simulations.datasets.lending:load",
        "9,857 loans, good or bad, by state of the US",
        _COLUMNS,
        extra="finance-lending",
    ),
    "linear": Source(
        "shoal.simulations.datasets.linear:load",
        "y = 2 + 3 x with noise, generated for any number of clients",
        args=("rows", "width"),
    ),
    "sentiment": Source(
        "shoal.simulations.datasets.sentiment:load",
        "17,363 Chinese reviews, negative or positive, by domain",
        extra="sentiment-zh",
    ),
    "thyroid": Source(
        "shoal.simulations.datasets.thyroid:load",
        "9,172 thyroid records, healthy or sick, by referral source",
        _COLUMNS,
    ),
    "wearables": Source(
        "shoal.simulations.datasets.wearables:load",
        "2,369 smartwatch windows, seven exercises, by person",
        extra="wearables",
    ),
}
FILES: Final[dict[str, Source]] = {
    "csv": Source(
        "shoal.simulations.datasets.tables:load_csv",
        "a CSV file with a client column, or a folder with one file per client",
        _OPTIONAL_KEYS,
        (*FORMAT_ARGUMENTS, *_DECISIONS),
    ),
    "parquet": Source(
        "shoal.simulations.datasets.tables:load_parquet",
        "a Parquet file with a client column, or a folder with one file per client",
        _OPTIONAL_KEYS,
        ("missing", *_DECISIONS),
    ),
    "npz": Source(
        "shoal.simulations.datasets.arrays:load_npz",
        "a .npz file with arrays x, y and, if there are sites, clients",
        ("path", *_COLUMNS),
    ),
    "text": Source(
        "shoal.simulations.datasets.folders:load_text",
        "a folder of texts, site/label/*.txt",
        ("path",),
        ("encoding",),
    ),
    "images": Source(
        "shoal.simulations.datasets.folders:load_images",
        "a folder of images, site/label/*.png or .jpg",
        ("path",),
        ("size", "grayscale"),
    ),
}
GIVEN: Final = "python"  # data.source of a run whose data are a Python object
SOURCES: Final[dict[str, Source]] = BUILT_IN | FILES
_OWN_FUNCTION: Final = "shoal.simulations.datasets.own:load"
_REFUSED: Final = "shoal.simulations.datasets.own:refuse_given"


def load_population(scenario: Scenario) -> Population:
    """Load a scenario's data and divide the rows among clients.

    Raises:
        ConfigError: the [data] or [partition] section has problems.
        DataError: the data cannot be used.
    """
    problems = check(scenario)
    if problems:
        raise ConfigError(problems)
    population = _loader(scenario.data.source)(scenario)
    _require_printable(population)
    return population


def _require_printable(population: Population) -> None:
    """Refuse names that would do something to a terminal or a log.

    Raises:
        DataError: it lists them, escaped.
    """
    schema = population.schema
    names = map(population.name, range(min(len(population), _MOST_NAMED)))
    problems = [
        *problems_of_names("site", names),
        *problems_of_names("column", [*(column.name for column in schema.columns), schema.label]),
        *problems_of_names("class", schema.classes),
    ]
    if problems:
        raise DataError("\n  ".join(problems[:_MOST_LISTED]))


def check(scenario: Scenario) -> list[str]:
    """Return one line for each problem with the data section, without loading anything."""
    data = scenario.data
    if data.source == GIVEN:
        return []
    if is_users_own(data.source):
        return form_problems("data.source", data.source)
    if data.source not in SOURCES:
        what = errors.unknown_name("data source", data.source, SOURCES)
        return [f"data.source: {what}, or package.module:function"]
    source = SOURCES[data.source]
    problems = [
        f'data.{key}: the source "{data.source}" sets this itself: remove the key'
        if data.source in BUILT_IN
        else f'data.{key}: the source "{data.source}" does not use this key: remove it'
        for key in _OPTIONAL_KEYS
        if getattr(data, key) and key not in source.keys
    ]
    problems += [
        f"data.args: {errors.unknown_name(f'argument of {data.source}', name, source.args)}"
        if source.args
        else f'data.args: the source "{data.source}" takes no arguments: remove "{name}"'
        for name in data.args
        if name not in source.args
    ]
    if data.source in FILES and data.path is None:
        problems.append(f'data.path: the source "{data.source}" needs the path of your file or folder')
    if data.source in ("csv", "parquet") and data.label is None:
        problems.append(f'data.label: the source "{data.source}" needs the name of the column to predict')
    return problems


def _loader(source: str) -> Callable[[Scenario], Population]:
    known = {name: entry.loader for name, entry in SOURCES.items()} | {GIVEN: _REFUSED}
    path = known.get(source, _OWN_FUNCTION)
    module, _, name = path.partition(":")
    found: Callable[[Scenario], Population] = getattr(importlib.import_module(module), name)
    return found
