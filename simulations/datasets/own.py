"""The user's own data: what package.module:function returns, or what a script has at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from shoal.common import errors
from shoal.common.config import DataConfig, Scenario
from shoal.common.errors import ConfigError, DataError
from shoal.common.plugins import load_object
from shoal.common.schema import Population
from shoal.common.tabular.reading import FileTable
from shoal.simulations.datasets.arrays import to_raw
from shoal.simulations.datasets.frames import as_table, is_frame
from shoal.simulations.datasets.loading import spread, spread_table
from shoal.simulations.datasets.raw import Raw

_EXPECTED: Final = (
    "expected a data frame with data.label among its columns; or (inputs, labels) or (inputs, labels, "
    "clients), where inputs are an array or a dict of columns and clients an array or None; or an object "
    "with the methods of common.schema.Population"
)


def load(scenario: Scenario) -> Population:
    """Call the function with data.args, and spread what it returns as `spread_given` does.

    Raises:
        ConfigError: it cannot be imported. DataError: it returned something else.
    """
    source = scenario.data.source
    return spread_given(
        load_object("data.source", source)(**scenario.data.args), scenario, f"{source} returned"
    )


def refuse_given(scenario: Scenario) -> Population:
    """Refuse a run whose data are at hand in a script only.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f'data.source: "{scenario.data.source}" stands for data that were given to shoal.simulate as objects',
        hint="give them again: shoal.resume(run, model=…, data=…)",
    )


def spread_given(found: Any, scenario: Scenario, where: str) -> Population:
    """Spread data over clients.

    Args:
        found: a data frame, of which the scenario names the columns; (inputs, labels) or (inputs, labels,
            clients), where inputs are an array as in an .npz file or a mapping of column names to arrays
            (rows,), and clients an array (rows,) or `None`; a population, which is returned as it is; or
            a function without arguments that returns one of these.
        scenario: says what is learnt from them.
        where: the start of errors, e.g. "data:".

    Raises:
        DataError: it is something else, or cannot be used.
    """
    if all(hasattr(found, name) for name in ("schema", "shard", "rows", "name", "__len__")):
        population: Population = found
        return population
    if callable(found):
        return spread_given(found(), scenario, where)
    if is_frame(found):
        table = FileTable(as_table(found, where), typed=True)
        return spread_table(table, scenario, site=scenario.data.client_column, where=where)
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        what = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise DataError(f"{where} {what}; {_EXPECTED}")
    inputs, labels, *clients = found
    sites = np.asarray(clients[0]) if clients and clients[0] is not None else None
    return _spread_arrays(inputs, np.asarray(labels), sites, scenario, where)


def _spread_arrays(
    inputs: Any, labels: np.ndarray, sites: np.ndarray | None, scenario: Scenario, where: str
) -> Population:
    if not isinstance(inputs, Mapping):
        if is_frame(inputs):
            inputs = {name: column.to_numpy() for name, column in _columns(as_table(inputs, where)).items()}
        else:
            return spread(to_raw(np.asarray(inputs), labels, sites, where), scenario)
    columns = {str(name): np.asarray(values) for name, values in inputs.items()}
    tensors = [name for name, values in columns.items() if values.ndim > 1]
    if tensors and len(columns) == 1:
        raw = to_raw(columns[tensors[0]], labels, sites, where, name=tensors[0])
    elif tensors:
        raise DataError(f"{where} the column {tensors[0]} with several dimensions: it must be the only one")
    else:
        raw = _columns_to_raw(columns, labels, sites, scenario.data, where)
    return spread(raw, scenario)


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _columns_to_raw(
    columns: dict[str, np.ndarray], labels: np.ndarray, sites: np.ndarray | None, data: DataConfig, where: str
) -> Raw:
    if data.text_column is not None and data.text_column not in columns:
        raise ConfigError(f"data.text_column: {errors.unknown_name('column', data.text_column, columns)}")
    sizes = {name: len(values) for name, values in columns.items()} | {"the labels": len(labels)}
    if sites is not None:
        sizes["the clients"] = len(sites)
    if len(set(sizes.values())) != 1:
        lengths = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{where} arrays of different lengths: {lengths}")
    label, site = _free("label", columns), _free("client", columns)
    arrays = columns | {label: labels} | ({} if sites is None else {site: sites})
    try:
        table = pa.table({name: pa.array(values, from_pandas=True) for name, values in arrays.items()})
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise DataError(
            f"{where} a column of mixed or unknown types; expected numbers, texts or true/false"
        ) from None
    return Raw(table, label=label, site=None if sites is None else site, text=data.text_column)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name
