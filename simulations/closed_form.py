"""The exact answer where there is one: least squares for a model of one linear unit."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord

from clients.resident import Resident
from common.config import Scenario
from common.preprocessing import PreprocessingSpec
from common.records import record_to_weights
from common.schema import Population

_MOST_CLIENTS = 10_000  # pooling more rows than these hold would cost more than the run


def closed_form(
    scenario: Scenario, population: Population, spec: PreprocessingSpec, arrays: ArrayRecord
) -> dict[str, dict[str, float]] | None:
    """Return learnt and exact coefficients, or `None` where there is no closed form.

    The exact ones minimise the mean squared error over all clients' training rows: FedAvg weighted
    by examples, with one full-batch step a round, is gradient descent on that very function.

    Returns:
        coefficient → {"learnt": …, "exact": …}.
    """
    regression = population.schema.task == "regression" and scenario.model.name == "linear"
    if not regression or len(population) > _MOST_CLIENTS:
        return None
    resident = Resident(scenario, population)
    resident.use_preprocessing(spec.to_json())
    parts = [resident.rows(client)["train"] for client in range(len(population))]
    x = np.concatenate([part.x for part in parts]).astype(np.float64)
    y = np.concatenate([part.y for part in parts]).astype(np.float64)
    design = np.column_stack([x, np.ones(len(x))])
    exact, *_ = np.linalg.lstsq(design, y, rcond=None)
    learnt = np.concatenate([w.ravel() for w in record_to_weights(arrays)])
    names = [*(f"weight {i}" for i in range(x.shape[1])), "intercept"]
    pairs = zip(names, learnt, exact, strict=True)
    return {name: {"learnt": float(a), "exact": float(b)} for name, a, b in pairs}
