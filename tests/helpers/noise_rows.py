"""Rows of which nothing can be learnt but themselves: a model that fits them has memorised them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def load(rows: int = 60, clients: int = 4, seed: int = 3) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return inputs of independent normal numbers, labels by coin, and the clients that hold them."""
    rng = np.random.default_rng(seed)
    total = rows * clients
    sites = np.repeat([f"site-{k}" for k in range(clients)], rows)
    return rng.standard_normal((total, 20)), rng.integers(0, 2, total), sites
