"""A client's state as a record of its `Context.state`, where Flower's deployment keeps it."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from shoal.clients.state import StateBatch
from shoal.common.arrays import NumpyArray, view
from shoal.common.messages.names import CLIENT_STATE


def record_of(states: StateBatch, row: int) -> ArrayRecord:
    """Return one client's state as a record of arrays; `row`: its row in the batch."""
    record = ArrayRecord()
    for name, values in states.arrays.items():
        record[name] = NumpyArray(values[row])
    return record


def batch_of(client: int, state: RecordDict) -> StateBatch | None:
    """Return the state stored in a client's `Context.state`; `None` if there is none."""
    record = state.get(CLIENT_STATE)
    if not isinstance(record, ArrayRecord):
        return None
    arrays = {name: view(array)[None] for name, array in record.items()}
    return StateBatch(np.array([client], np.int64), arrays)
