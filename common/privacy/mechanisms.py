"""The mechanisms of differential privacy that `privacy.unit` names, and what each means for a run.

What a mechanism does to an update is in `clients/mechanisms.py` (at the client) and `server/aggregation.py`
(at the server); here is what anybody may ask of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from shoal.common.config import PrivacyConfig

Unit = Literal["none", "client", "local", "record"]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism.

    Attributes:
        unit: its name in a scenario.
        member: what one member is, whose presence is hidden; "" where nothing is guaranteed.
        whole_clients: whether a member is a client with all its rows, so that one plan holds for all.
        per_row: whether each step of local training is private (DP-SGD).
        norms_apart: how many clipping norms two neighbouring updates can differ by: a client that is there or
            not, one; a client that could send anything else, two.
        server_noise: whether the server adds the noise, and so sees updates without it.
    """

    unit: Unit
    member: str = ""
    whole_clients: bool = False
    per_row: bool = False
    norms_apart: int = 1
    server_noise: bool = False

    @property
    def guarantees(self) -> bool:
        """Whether anything is guaranteed. Then no round is chosen by looking at rows: the last is kept."""
        return bool(self.member)


MECHANISMS: Final[Mapping[str, Mechanism]] = {
    "none": Mechanism("none"),
    "client": Mechanism("client", "one client with all its rows", whole_clients=True, server_noise=True),
    "local": Mechanism("local", "one client with all its rows", whole_clients=True, norms_apart=2),
    "record": Mechanism("record", "one training row", per_row=True),
}


def mechanism_of(privacy: PrivacyConfig) -> Mechanism:
    """Return the mechanism of a scenario."""
    return MECHANISMS[privacy.unit]
