"""The client halves of federated algorithms, by the name of the strategy that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shoal.clients.algorithms.algorithm import ClientAlgorithm
from shoal.clients.algorithms.fedprox import FedProxClient
from shoal.clients.algorithms.scaffold import ScaffoldClient
from shoal.clients.update.pipeline import feeds_back
from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.privacy.mechanisms import mechanism_of

_ALGORITHMS: Final[Mapping[str, type[ClientAlgorithm]]] = {
    one.name: one for one in (FedProxClient, ScaffoldClient)
}


def client_algorithm(strategy: str) -> ClientAlgorithm:
    """Return the client half of a strategy; plain averaging for a strategy that has none of its own."""
    return _ALGORITHMS.get(strategy, ClientAlgorithm)()


def require_protected(scenario: Scenario, algorithm: ClientAlgorithm) -> None:
    """Require that an algorithm sends nothing with its updates that noise or masks would have to protect.

    The client checks this itself: the server that names the algorithm may be the party to protect against.

    Raises:
        DisclosureError: it sends something.
    """
    if algorithm.sends and (mechanism_of(scenario.privacy).guarantees or scenario.secure.aggregation):
        raise DisclosureError(
            f"{algorithm.name} sends {algorithm.sends}, "
            "which neither privacy.unit nor secure.aggregation protects"
        )


def keeps_states(scenario: Scenario) -> bool:
    """Return whether clients of a scenario have a state that lasts between rounds."""
    personal = scenario.model.aggregate_statistics == "local"
    stateful = client_algorithm(scenario.strategy.name).stateful
    return personal or stateful or feeds_back(scenario.update)
