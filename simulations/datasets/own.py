"""The user's own function: package.module:function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from common.config import Scenario
from common.errors import ConfigError, DataError
from common.schema import Population
from simulations.datasets.arrays import to_raw
from simulations.datasets.loading import spread
from simulations.datasets.raw import Raw


def load(scenario: Scenario) -> Population:
    """Call the function with data.args; it returns a population, or (inputs, labels, clients).

    Inputs are an array as in an .npz file, or a mapping of column names to arrays (rows,); clients
    are an array (rows,) or `None`.

    Raises:
        ConfigError: it cannot be imported; DataError: it returned something else.
    """
    found = _function(scenario.data.source)(**scenario.data.args)
    if all(hasattr(found, name) for name in ("schema", "shard", "rows", "name", "__len__")):
        population: Population = found
        return population
    if not isinstance(found, tuple) or len(found) != 3:
        raise DataError(
            f"{scenario.data.source} returned a {type(found).__name__}; expected (inputs, labels, clients) "
            "or a population"
        )
    inputs, labels, clients = found
    if isinstance(inputs, dict):
        columns = {name: np.asarray(values) for name, values in inputs.items()}
        columns["label"] = np.asarray(labels)
        if clients is not None:
            columns["client"] = np.asarray(clients).astype(str)
        raw = Raw(pa.table(columns), label="label", site=None if clients is None else "client")
    else:
        site = None if clients is None else np.asarray(clients)
        raw = to_raw(np.asarray(inputs), np.asarray(labels), site, scenario.data.source)
    return spread(raw, scenario)


def _function(path: str):  # type: ignore[no-untyped-def]
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f'data.source: "{path}" cannot be loaded: {error}',
            hint="it is looked up from the folder where shoal was started",
        ) from error
