"""Vectors, other than updates, that clients may be asked to add up under masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.preprocessing.sums import summand_of
from shoal.clients.runtime import ClientRuntime
from shoal.common.messages.requests import SecureVectorRequest, question
from shoal.common.preprocessing.sums.wide import is_wide, spread

# (data of this process, client index, request) → a vector whose length follows from the request and not
# from the data; numbers beyond the range that the server names are clipped to it
VectorFunction = Callable[[ClientRuntime, int, SecureVectorRequest], NDArray[np.float64]]


def rows(runtime: ClientRuntime, client: int, request: SecureVectorRequest) -> NDArray[np.float64]:
    """Return the client's numbers of rows for training, validation and test, (3,)."""
    splits = runtime.raw(client)
    return np.array([splits[name].rows for name in ("train", "validation", "test")], np.float64)


def statistics(runtime: ClientRuntime, client: int, request: SecureVectorRequest) -> NDArray[np.float64]:
    """Return the client's part of a sum of statistics, with its part of the noise, as integers."""
    asked = question(request)
    vector = summand_of(runtime, client, asked)
    return (spread(vector) if is_wide(asked) else vector).astype(np.float64)


# purpose → function
VECTORS: Final[Mapping[str, VectorFunction]] = {"rows": rows, "statistics": statistics}
