"""The exact solution for a model of one linear unit: least squares."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord

from shoal.clients.shard import split
from shoal.common.config import Scenario
from shoal.common.preprocessing import PreprocessingSpec
from shoal.common.schema import Population
from shoal.common.weights import record_to_weights

_MOST_CLIENTS = 10_000  # pooling the rows of more clients would cost more than the run


def closed_form(
    scenario: Scenario, population: Population, spec: PreprocessingSpec, arrays: ArrayRecord
) -> dict[str, dict[str, float]] | None:
    """Return learnt and exact coefficients in the columns' own units.

    The exact ones minimise the mean squared error over all clients' training rows; FedAvg weighted by
    examples with one full-batch step per round is gradient descent on the same function. The learnt ones
    are rescaled: w (x - shift) / scale + b = (w / scale) x + b - w shift / scale.

    Returns:
        coefficient → {"learnt": …, "exact": …}; `None` if there is no closed form: another model,
        inputs that are not all numbers, missing values, or very many clients.
    """
    plain = len(spec.numeric) == spec.input_spec.shape[0]
    if scenario.model.name != "linear" or not plain or len(population) > _MOST_CLIENTS:
        return None
    names = [column.name for column in spec.numeric]
    parts = [
        split(population.shard(client), scenario.data, scenario.seed, client)["train"]
        for client in range(len(population))
    ]
    x = np.concatenate([np.column_stack([part.columns[name] for name in names]) for part in parts])
    y = np.concatenate([part.labels for part in parts]).astype(np.float64)
    if not np.isfinite(x).all():
        return None
    exact, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)
    kernel, bias = (w.astype(np.float64).ravel() for w in record_to_weights(arrays))
    shift, scale = (np.array([getattr(c, key) for c in spec.numeric]) for key in ("shift", "scale"))
    learnt = [*(kernel / scale), bias[0] - (kernel * shift / scale).sum()]
    pairs = zip([*(f"slope of {name}" for name in names), "intercept"], learnt, exact, strict=True)
    return {name: {"learnt": float(a), "exact": float(b)} for name, a, b in pairs}
