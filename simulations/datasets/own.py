"""The user's own function: package.module:function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shoal.common import errors
from shoal.common.config import DataConfig, Scenario
from shoal.common.errors import ConfigError, DataError
from shoal.common.schema import Population
from shoal.simulations.datasets.arrays import to_raw
from shoal.simulations.datasets.loading import spread
from shoal.simulations.datasets.raw import Raw

_EXPECTED = (
    "expected (inputs, labels, clients), where inputs are an array or a dict of columns, and clients an "
    "array or None; or an object with the methods of shoal.common.schema.Population"
)


def load(scenario: Scenario) -> Population:
    """Call the function with data.args; it returns a population, or (inputs, labels, clients).

    Inputs are an array as in an .npz file, or a mapping of column names to arrays (rows,); clients
    are an array (rows,) or `None`.

    Raises:
        ConfigError: it cannot be imported. DataError: it returned something else.
    """
    source = scenario.data.source
    found = _function(source)(**scenario.data.args)
    if all(hasattr(found, name) for name in ("schema", "shard", "rows", "name", "__len__")):
        population: Population = found
        return population
    if not isinstance(found, tuple) or len(found) != 3:
        what = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise DataError(f"{source} returned {what}; {_EXPECTED}")
    inputs, labels, clients = found
    sites = None if clients is None else np.asarray(clients)
    if not isinstance(inputs, Mapping):
        return spread(to_raw(np.asarray(inputs), np.asarray(labels), sites, source), scenario)
    columns = {str(name): np.asarray(values) for name, values in inputs.items()}
    tensors = [name for name, values in columns.items() if values.ndim > 1]
    if tensors and len(columns) == 1:
        raw = to_raw(columns[tensors[0]], np.asarray(labels), sites, source, name=tensors[0])
    elif tensors:
        raise DataError(
            f"{source} returned the column {tensors[0]} with several dimensions: it must be the only one"
        )
    else:
        raw = _columns_to_raw(columns, np.asarray(labels), sites, scenario.data)
    return spread(raw, scenario)


def _columns_to_raw(
    columns: dict[str, np.ndarray], labels: np.ndarray, sites: np.ndarray | None, data: DataConfig
) -> Raw:
    if data.text_column is not None and data.text_column not in columns:
        raise ConfigError(f"data.text_column: {errors.unknown_name('column', data.text_column, columns)}")
    sizes = {name: len(values) for name, values in columns.items()} | {"the labels": len(labels)}
    if sites is not None:
        sizes["the clients"] = len(sites)
    if len(set(sizes.values())) != 1:
        lengths = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{data.source} returned arrays of different lengths: {lengths}")
    label, site = _free("label", columns), _free("client", columns)
    arrays = columns | {label: labels} | ({} if sites is None else {site: sites})
    try:
        table = pa.table({name: pa.array(values, from_pandas=True) for name, values in arrays.items()})
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise DataError(
            f"{data.source} returned a column of mixed or unknown types; expected numbers, text or true/false"
        ) from None
    return Raw(table, label=label, site=None if sites is None else site, text=data.text_column)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f'data.source: "{path}" cannot be loaded: {error}',
            hint="modules are imported from the current directory and from installed packages",
        ) from error
    return found
