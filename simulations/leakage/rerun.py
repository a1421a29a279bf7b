"""Trains a run's scenario again with the same code as the run, including its protection."""

from __future__ import annotations

from shoal.common.config import Scenario
from shoal.common.schema import Population
from shoal.server.app import Hooks, Outcome
from shoal.simulations.export import load_trained
from shoal.simulations.leakage.target import Released
from shoal.simulations.run import coordinate


def train_again(scenario: Scenario, population: Population, *, last: bool = False) -> Released:
    """Train in this process, writing nothing to disk, and return the model of the best round.

    Args:
        scenario: from `again`; population: its clients.
        last: return the model of the last round instead.
    """
    found: list[Outcome] = []
    coordinate(scenario, population, Hooks([], lambda fitted: None), found.append)
    progress = found[0].progress
    arrays = progress.arrays if last else progress.best_arrays
    spec = found[0].fitted.spec
    return Released(spec.to_json(), load_trained(scenario, population.schema, spec, arrays).get_weights())


def again(scenario: Scenario, seed: int) -> Scenario:
    """Return a scenario to train again, with another seed and without what only reports need.

    Clients run in this process: starting Ray takes longer than most scenarios that are audited, and where
    clients run does not change the bits.
    """
    parts = {
        "resources": {"backend": "serial", "transport": "direct"},
        "output": {"compare": False, "bootstrap": 0, "checkpoint_every": 0},
    }
    changed = {name: getattr(scenario, name).model_copy(update=part) for name, part in parts.items()}
    return scenario.model_copy(update={**changed, "seed": seed})
