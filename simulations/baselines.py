"""What only a simulation can do: pool the rows of all clients, simulate malicious ones, outlive a run.

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
from shoal.simulations.portable_model import model_identity


class PooledRuntime(ClientRuntime):
    """A runtime with the attack, and one more client, `pooled_client`, with the rows of all clients."""

    def __init__(self, scenario: Scenario, population: Population) -> None:
        super().__init__(scenario, population)
        self.pooled_client = len(population)
        self.adversary = make_adversary(scenario, population)
        self._earlier: PooledRuntime | None = None

    def adopt(self, earlier: PooledRuntime) -> None:
        """Take over the compiled model of an earlier run of this process, where this run's is the same.

        Building and tracing a model takes about a second, and every call of a trainer states the weights
        to start from: so results are the same bits either way.

        Args:
            earlier: a runtime that no run uses any more.
        """
        self._earlier = earlier

    def use_preprocessing(self, spec_json: str) -> None:
        """Take the preprocessing that the server fitted; from then on it is known what the model is."""
        super().use_preprocessing(spec_json)
        earlier, self._earlier = self._earlier, None
        if earlier is not None and earlier._encoder is not None and earlier._compiled == self._compiled:
            self.adopt_model(earlier)

    @property
    def _compiled(self) -> tuple[object, ...]:
        """All that a compiled model depends on; initial weights and learning rates come with each message."""
        scenario = self.scenario
        compiled = {"optimizer", "optimizer_args", "loss", "loss_args"}
        return (
            model_identity(scenario.model),
            self.encoder.spec.input_spec,
            self.schema.task,
            self.schema.num_classes,
            scenario.training.model_dump(include=compiled),
            scenario.strategy.model_dump(include={"name", "args"}),
            scenario.privacy,
        )

    def rows(self, client: int) -> dict[Split, Rows]:
        """Return a client's encoded rows, or the pooled ones."""
        if client != self.pooled_client:
            return super().rows(client)
        parts = [super(PooledRuntime, self).rows(c) for c in range(self.pooled_client)]
        return {name: _join([part[name] for part in parts]) for name in parts[0]}


def _join(parts: list[Rows]) -> Rows:
    return Rows(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
