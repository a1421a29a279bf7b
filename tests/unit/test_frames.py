"""Data given in Python: frames of any library, dicts and arrays become the same population."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, DataError
from shoal.common.schema import Population
from shoal.simulations import datasets
from shoal.simulations.datasets.own import spread_given

ROWS = 40
COLUMNS = {
    "site": np.array(["a", "b"] * 20),
    "age": np.where(np.arange(ROWS) % 7 == 0, np.nan, np.arange(ROWS) * 1.0),
    "sex": np.array(["f", "m", "m", "f"] * 10),
    "y": np.array(["no", "yes", "yes", "no", "no"] * 8),
}


class Capsule:
    """A frame of a library that we do not know, with Arrow's interface only."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return pa.table({k: pa.array(v) for k, v in COLUMNS.items()}).__arrow_c_stream__(requested_schema)


class Columnar:
    """A frame of an older library, with columns that turn into arrays."""

    columns = tuple(COLUMNS)

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return pd.Series(COLUMNS[name])

    def to_numpy(self) -> None:
        raise AssertionError("columns are taken one by one")


def spread(data: object, **section: Any) -> Population:
    section = {"label": "y", "client_column": "site"} | section
    values = {
        "name": "t",
        "data": {"source": "python"} | {k: v for k, v in section.items() if v is not None},
        "model": {"name": "mlp"},
    }
    return spread_given(data, Scenario.model_validate(values), "data:")


def indexed() -> pd.DataFrame:
    frame = pd.DataFrame(COLUMNS, index=[f"patient {i}" for i in range(ROWS)])
    return frame.astype({"sex": "category", "site": "category", "y": "category"})


@pytest.mark.parametrize("data", [
    pd.DataFrame(COLUMNS), indexed(), pa.table(COLUMNS), pa.RecordBatch.from_pydict(COLUMNS), Capsule(),
    Columnar(), COLUMNS, lambda: pd.DataFrame(COLUMNS),
], ids=["pandas", "index", "pyarrow", "batch", "capsule", "columnar", "dict", "function"])  # fmt: skip
def test_every_kind_of_frame_gives_the_same_clients(data: object) -> None:
    population = spread(data)
    assert [(c.name, c.kind) for c in population.schema.columns] == [
        ("age", "numeric"),
        ("sex", "categorical"),
    ]
    assert (population.schema.classes, population.schema.task) == (("no", "yes"), "binary")
    assert [population.name(i) for i in range(len(population))] == ["a", "b"]
    shard = population.shard(1)
    rows = np.arange(1, ROWS, 2)  # of site b
    np.testing.assert_array_equal(shard.columns["age"], COLUMNS["age"][rows])
    assert list(shard.columns["sex"]) == list(COLUMNS["sex"][rows])
    assert list(shard.labels) == [int(value == "yes") for value in COLUMNS["y"][rows]]


def test_arrays_with_and_without_clients() -> None:
    x, y = np.arange(120.0).reshape(40, 3), np.arange(40) % 2
    three = spread((x, y, COLUMNS["site"]), label=None, client_column=None)
    assert [c.name for c in three.schema.columns] == ["x0", "x1", "x2"]
    assert len(three) == 2
    with pytest.raises(ConfigError, match="needs sites, but these data have none"):
        spread((x, y), label=None, client_column=None)
    inputs = pd.DataFrame({k: COLUMNS[k] for k in ("age", "sex")})
    mixed = spread((inputs, COLUMNS["y"], COLUMNS["site"]), label=None, client_column=None)
    assert [c.kind for c in mixed.schema.columns] == ["numeric", "categorical"]


def test_a_population_is_taken_as_it_is() -> None:
    population = spread(COLUMNS)
    assert spread(population) is population


def test_what_cannot_be_used_is_refused_without_a_value() -> None:
    with pytest.raises(ConfigError, match=r'data\.label: unknown column "outcome"'):
        spread(COLUMNS, label="outcome")
    with pytest.raises(
        ConfigError,
        match=r'data\.client_column: unknown column "sites" among the 4 columns\. Did you mean "site"',
    ):
        spread(COLUMNS, client_column="sites")
    with pytest.raises(DataError, match=r"data: int; expected a data frame"):
        spread(7)
    with pytest.raises(DataError, match="mixed or unknown types") as caught:
        spread({**COLUMNS, "odd": np.array([{"secret": 1}, 2] * 20, object)})
    assert "secret" not in str(caught.value)


def test_a_config_that_is_read_back_names_the_data_but_does_not_have_them() -> None:
    values = {"name": "t", "data": {"source": "python"}, "model": {"name": "mlp"}}
    with pytest.raises(ConfigError, match=r"were given to shoal\.simulate as objects"):
        datasets.load_population(Scenario.model_validate(values))
