"""What only a simulation can do: train on the pooled rows of all clients, and simulate malicious clients.

The pooled rows are one more client, with the index after the last, that no strategy sees. Its training rows
are the union of all clients' training rows, and likewise for validation; they include no test rows. This
client is honest whatever the scenario's attack is.
"""

from __future__ import annotations

import numpy as np

from shoal.clients.runtime import ClientRuntime, Rows
from shoal.common.config import Scenario
from shoal.common.schema import Population, Split
from shoal.simulations.attacks.adversary import make_adversary


class PooledRuntime(ClientRuntime):
    """A runtime with the attack, and one more client, `pooled_client`, with the rows of all clients."""

    def __init__(self, scenario: Scenario, population: Population) -> None:
        super().__init__(scenario, population)
        self.pooled_client = len(population)
        self.adversary = make_adversary(scenario, population)

    def rows(self, client: int) -> dict[Split, Rows]:
        """Return a client's encoded rows, or the pooled ones."""
        if client != self.pooled_client:
            return super().rows(client)
        parts = [super(PooledRuntime, self).rows(c) for c in range(self.pooled_client)]
        return {name: _join([part[name] for part in parts]) for name in parts[0]}


def _join(parts: list[Rows]) -> Rows:
    return Rows(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
