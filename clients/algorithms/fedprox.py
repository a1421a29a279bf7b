"""FedProx: a proximal term keeps local weights near the server's.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks, MLSys 2020, eq.
2. The server half is Flower's strategy of that name, which puts mu into each request.
"""

from __future__ import annotations

from typing import ClassVar

from shoal.clients.algorithms.algorithm import ClientAlgorithm, States
from shoal.clients.training.objective import LocalObjective
from shoal.common.messages.requests import TrainRequest


class FedProxClient(ClientAlgorithm):
    """Adds mu/2 ‖w − w_global‖² to the loss."""

    name: ClassVar[str] = "FedProx"

    def local_objective(self, request: TrainRequest, states: States) -> LocalObjective | None:
        """Return the proximal term; `None` if mu = 0, where FedProx equals FedAvg."""
        return LocalObjective(mu=request.proximal_mu) if request.proximal_mu else None
