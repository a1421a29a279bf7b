"""Handwritten digits, 8 x 8 pixels; docs/data/digits.md is the data card."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.schema import Population
from shoal.simulations.datasets.loading import spread
from shoal.simulations.datasets.raw import Raw


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 8, 8, 1) float32 in [0, 1] and digits (1797,)."""
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    found = load_digits()
    return (found.images[..., None] / 16).astype(np.float32), found.target.astype(np.int64)


def load(scenario: Scenario) -> Population:
    """Load the population; the data have no sites, so the scenario must set a partition."""
    images, digits = read()
    return spread(Raw(pa.table({"digit": digits}), label="digit", tensors={"image": images}), scenario)
