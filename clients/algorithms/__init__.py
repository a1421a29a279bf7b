"""The client halves of federated algorithms, by the name of the strategy that asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shoal.clients.algorithms.algorithm import ClientAlgorithm
from shoal.clients.algorithms.fedprox import FedProxClient
from shoal.clients.algorithms.scaffold import ScaffoldClient
from shoal.common.config import Scenario

_ALGORITHMS: Final[Mapping[str, type[ClientAlgorithm]]] = {
    one.name: one for one in (FedProxClient, ScaffoldClient)
}


def client_algorithm(strategy: str) -> ClientAlgorithm:
    """Return the client half of a strategy; plain averaging for one that needs nothing of clients."""
    return _ALGORITHMS.get(strategy, ClientAlgorithm)()


def keeps_states(scenario: Scenario) -> bool:
    """Tell whether clients of a scenario remember anything from round to round."""
    personal = scenario.model.aggregate_statistics == "local"
    return personal or client_algorithm(scenario.strategy.name).stateful
