"""Vectors, other than updates, that clients may be asked to add up under masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shoal.clients.preprocessing.sums import summand_of
from shoal.clients.runtime import ClientRuntime
from shoal.common.messages.requests import SecureVectorRequest, question
from shoal.common.preprocessing.sums.wide import is_wide, spread

# (data of this process, client index, request, clients in the session) → whole numbers, (length,), where the
# length follows from the request and not from the data
VectorFunction = Callable[[ClientRuntime, int, SecureVectorRequest, int], NDArray[np.int64]]


def statistics(
    runtime: ClientRuntime, client: int, request: SecureVectorRequest, clients: int
) -> NDArray[np.int64]:
    """Return the client's part of a sum of statistics, with its part of the noise."""
    asked = question(request)
    vector = summand_of(runtime, client, asked, clients)
    return spread(vector) if is_wide(asked) else vector
