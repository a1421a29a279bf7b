"""Sums over shards in this process: what `server.sums.ClearSum` does, without messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.preprocessing.contribution import Contribution
from shoal.clients.preprocessing.sums import summand
from shoal.common.config import Scenario
from shoal.common.preprocessing import Statistics
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.preprocessing.sums.questions import number_of_pass
from shoal.common.privacy.noise import randomness
from shoal.common.schema import Schema, Shard
from shoal.server.preprocessing.summed_statistics import SummedStatistics
from shoal.server.preprocessing.sums import SummedVector


@dataclass
class ShardSum:
    """Adds what shards answer, and keeps each answer by pass."""

    shards: Sequence[Shard]
    schema: Schema
    scenario: Scenario
    answers: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)

    def __call__(self, question: dict[str, Any], size: int) -> SummedVector:
        vectors = [
            summand(
                Contribution(shard, SumsPlan.of(self.schema, self.scenario)),
                self.scenario,
                question,
                randomness(
                    "seeded", 1, "statistics-noise", dispatch=number_of_pass(question), client=client + 1
                ),
            )
            for client, shard in enumerate(self.shards)
        ]
        assert all(vector.shape == (size,) and vector.dtype == np.int64 for vector in vectors)
        self.answers.setdefault(question["pass"], []).extend(vectors)
        return SummedVector(np.sum(vectors, axis=0), len(vectors))


def total_of(shards: Sequence[Shard], schema: Schema, scenario: Scenario, seed: int = 1) -> Statistics:
    asked = ShardSum(shards, schema, scenario)
    source = randomness("seeded", seed, "statistics-noise")
    return SummedStatistics(asked, len(shards), schema, scenario, source).total()


def scenario_with(**sections: dict[str, Any]) -> Scenario:
    raw: dict[str, Any] = {
        "name": "t",
        "data": {"source": "linear"},
        "model": {"name": "mlp"},
        "preprocessing": {"min_count": 1, "min_sites": 1},
    }
    return Scenario.model_validate(raw | sections)
