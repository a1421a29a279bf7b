"""The one place where random generators are made.

Every draw in a run comes from a generator derived from (seed, purpose, dispatch, client), so that repeated,
moved or reordered work draws the same numbers again.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

Purpose = Literal[
    "partition",  # which client holds which row
    "split",  # which of a client's rows are held out
    "statistics",  # which clients report statistics, if there are very many
    "sampling",  # which clients train in a round
    "evaluation",  # which clients evaluate in a round
    "shuffle",  # the order of a client's rows in local training
    "weights",  # the model's initial weights
    "dropout",  # random layers during local training
    "bootstrap",  # resampling for confidence intervals
    "data",  # synthetic data
    "noise",  # noise added to updates
    "server-noise",  # noise added to sums at the server
    "statistics-noise",  # noise added to sums of statistics, by clients or the server
    "secure-noise",  # a client's share of noise in secure aggregation
    "batches",  # which rows each step of DP-SGD uses
    "gradient-noise",  # noise added to gradients in DP-SGD
    "attack",  # which clients are malicious, and the data they make up
    "audit",  # canaries, shadow models and other parts of a leakage audit
    "compression",  # random rounding of updates
]


class _Digest(ISeedSequence):
    """Seeds a generator with the BLAKE2b digest of a text: like `SeedSequence`, in a sixth of the time.

    One is made for every client of a round. Digests of different texts are practically independent, and the
    same in every process and version of Python, unlike `hash(str)`.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[Any]:
        """Return the words that numpy requests."""
        kind = np.dtype(dtype)
        return np.frombuffer(blake2b(self._text, digest_size=n_words * kind.itemsize).digest(), kind)


def generator(seed: int, purpose: Purpose, *, dispatch: int = 0, client: int = 0) -> np.random.Generator:
    """Return the generator for one purpose, dispatch and client.

    Args:
        seed: the run's seed, at least 0.
        purpose: what the numbers are for; different purposes never share a stream.
        dispatch: number of the dispatch, from 1; equals the round in synchronous training. 0 means "before
            the first".
        client: the client's index, starting at 0; the default is for draws of the server.
    """
    return np.random.Generator(np.random.PCG64(_Digest(_text(seed, purpose, dispatch, client))))  # type: ignore[arg-type]


def _text(seed: int, purpose: Purpose, dispatch: int, client: int) -> bytes:
    return f"{seed}/{dispatch}/{client}/{purpose}".encode()


def integer_seed(seed: int, purpose: Purpose, *, dispatch: int = 0, client: int = 0) -> int:
    """Return a seed in [0, 2**31) for libraries that take an integer, such as Keras."""
    return int.from_bytes(blake2b(_text(seed, purpose, dispatch, client), digest_size=4).digest()) % 2**31
