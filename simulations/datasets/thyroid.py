"""Thyroid disease records by referral source; docs/data/thyroid.md is the data card."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from shoal.common.config import Scenario
from shoal.common.schema import Population
from shoal.simulations.datasets.loading import spread
from shoal.simulations.datasets.raw import Raw

HEALTHY = "-"
_OLDEST = 120.0  # a few ages of several hundred or thousand years are typing errors


def read() -> pa.Table:
    """Return the table with the label column "diagnosis" (healthy or sick), 9,172 rows."""
    with as_file(files("shoal.simulations.datasets") / "data" / "thyroid.csv.gz") as path:
        convert = csv.ConvertOptions(strings_can_be_null=True, null_values=[""])
        table = csv.read_csv(path, convert_options=convert)
    diagnosis = pc.if_else(pc.equal(table["target"], HEALTHY), "healthy", "sick")
    age = np.asarray(table["age"].cast(pa.float64()))
    age = np.where(age > _OLDEST, np.nan, age)
    table = table.set_column(table.column_names.index("age"), "age", pa.array(age))
    return table.append_column("diagnosis", diagnosis).drop_columns(["target", "patient_id"])


def load(scenario: Scenario) -> Population:
    """Load the population; sites are the six referral sources."""
    return spread(Raw(read(), label="diagnosis", site="referral_source", positive="sick"), scenario)
