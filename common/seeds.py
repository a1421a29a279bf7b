"""The one place where random generators are made.

Every draw in a run comes from a generator derived from (seed, purpose, round, client), so that work
that is repeated, moved to another process or reordered draws the same numbers again.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

Purpose = Literal[
    "partition",  # which client holds which row
    "split",  # which of a client's rows are held out
    "statistics",  # which clients are asked for statistics, where there are very many
    "sampling",  # which clients train in a round
    "evaluation",  # which clients evaluate in a round
    "shuffle",  # the order of a client's rows in local training
    "weights",  # the model's initial weights
    "dropout",  # random layers during local training
    "bootstrap",  # resampling for confidence intervals
    "data",  # synthetic data
    "noise",  # noise added to updates
    "compression",  # random rounding of updates
]


def generator(seed: int, purpose: Purpose, *, round: int = 0, client: int = 0) -> np.random.Generator:
    """Return the generator for one purpose, round and client.

    Args:
        seed: the run's seed, at least 0.
        purpose: what the numbers are for; different purposes never share a stream.
        round: the federated round, starting at 1; 0 means "before the first round".
        client: the client's index, starting at 0; use the default for draws of the server.
    """
    # crc32 is stable over processes and Python versions, which `hash(str)` is not.
    key = (zlib.crc32(purpose.encode()), round, client)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def integer_seed(seed: int, purpose: Purpose, *, round: int = 0, client: int = 0) -> int:
    """Return a seed in [0, 2**31) for libraries that take an integer, such as Keras."""
    return int(generator(seed, purpose, round=round, client=client).integers(2**31))
