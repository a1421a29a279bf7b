"""The mechanisms of differential privacy, by `privacy.unit`, and their properties.

How a mechanism processes an update is in `clients/mechanisms.py` (client) and `server/aggregation.py`
(server); this module holds the properties that all parts need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from shoal.common.config import PrivacyConfig, Scenario

Unit = Literal["none", "client", "local", "record"]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism.

    Attributes:
        unit: its name in a scenario.
        member: the protected member in a word; "" without a guarantee.
        protects: the same in full.
        whole_clients: whether a member is a client with all its rows, so that one plan holds for all clients.
        per_row: whether each step of local training is private (DP-SGD).
        norms_apart: by how many clipping norms two neighbouring updates can differ: 1 for adding or removing
            a client, 2 for a client that could send anything else.
        server_noise: whether the server adds the noise, and so sees updates without noise.
    """

    unit: Unit
    member: str = ""
    protects: str = ""
    whole_clients: bool = False
    per_row: bool = False
    norms_apart: int = 1
    server_noise: bool = False

    @property
    def against_server(self) -> bool:
        """Whether noise is added before the server sees an update, so that it need not be trusted with it."""
        return self.guarantees and not self.server_noise

    @property
    def guarantees(self) -> bool:
        """Whether there is a guarantee. If so, no round is selected by metrics: the last one is kept."""
        return bool(self.member)


MECHANISMS: Final[Mapping[str, Mechanism]] = {
    "none": Mechanism("none"),
    "client": Mechanism(
        "client", "client", "one client with all its rows", whole_clients=True, server_noise=True
    ),
    "local": Mechanism("local", "client", "one client with all its rows", whole_clients=True, norms_apart=2),
    "record": Mechanism("record", "training row", "one training row", per_row=True),
}


def trusts_server(scenario: Scenario) -> bool:
    """Whether the server adds the noise to updates that it sees; otherwise it must not learn from them."""
    return mechanism_of(scenario.privacy).server_noise and not scenario.secure.aggregation


def mechanism_of(privacy: PrivacyConfig) -> Mechanism:
    """Return the mechanism of a scenario."""
    return MECHANISMS[privacy.unit]
