"""What a client requires of an algorithm, whatever its server says."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.clients.algorithms import client_algorithm, require_protected
from shoal.common.errors import DisclosureError
from shoal.server.strategies.catalog import STRATEGIES
from shoal.simulations.checks.scenario import validate
from tests.helpers.summing import scenario_with

NAMES = ("FedAvg", "FedProx", "SCAFFOLD")
PROTECTED: list[dict[str, dict[str, Any]]] = [
    {"privacy": {"unit": unit, "noise_multiplier": 1.0}} for unit in ("client", "local", "record")
] + [{"secure": {"aggregation": True}}]


@pytest.mark.parametrize("sections", PROTECTED)
def test_nothing_unprotected_travels_beside_a_protected_update(sections: dict[str, dict[str, Any]]) -> None:
    """Against a lying server, which sends each site a scenario that its own checks would have refused."""
    scenario = scenario_with(**sections)
    for name in ("FedAvg", "FedProx"):
        require_protected(scenario, client_algorithm(name))
    with pytest.raises(DisclosureError, match="SCAFFOLD sends the change of its control variates"):
        require_protected(scenario, client_algorithm("SCAFFOLD"))


@pytest.mark.parametrize("sections", PROTECTED)
def test_the_scenario_checks_refuse_it_before_a_run(sections: dict[str, dict[str, Any]]) -> None:
    problems = validate(scenario_with(strategy={"name": "SCAFFOLD"}, **sections), deep=False)
    assert any("each client of SCAFFOLD sends the change of its control variates" in p for p in problems)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_guarantee_every_algorithm_may_run(name: str) -> None:
    require_protected(scenario_with(), client_algorithm(name))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_catalog_says_what_a_client_sends(name: str) -> None:
    """The server's table is what `validate` reads; the client's own class is what the site obeys."""
    assert STRATEGIES[name].sends == client_algorithm(name).sends
