"""The encoding of a secure sum, and the noise that its clients add to it.

Server and clients derive both from the scenario, the number of sites, and the number of clients in the
session. No message contains them: a server that lies about them only makes the sum unreadable for itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from shoal.common.config import Scenario
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.plan import ClientPrivacyPlan, SumNoise, central_noise
from shoal.common.secure.fixed_point import FixedPoint
from shoal.common.secure.graph import choose

_WHOLE: Final = 2**31 - 1  # largest number of one client
WHOLE_NUMBERS: Final = FixedPoint(float(_WHOLE), _WHOLE)  # leaves whole numbers as they are


@dataclass(frozen=True, slots=True)
class SumEncoding:
    """How a training round is added up.

    Attributes:
        fixed: the encoding of an update; noise: in the sum, if as few clients as certain are in it.
        least: clients that are certain to be in the sum; each adds 1 / √least of the noise.
    """

    fixed: FixedPoint
    noise: SumNoise
    least: int


def training_encoding(
    scenario: Scenario, plan: ClientPrivacyPlan | None, sites: int, clients: int, clip_norm: float | None
) -> SumEncoding:
    """Return the encoding of a training round.

    Args:
        scenario: the configuration; plan: its plan if clients are protected; sites: in the federation.
        clients: in the session; clip_norm: of the round, `None` for privacy.clip_norm.

    Raises:
        ConfigError: too few clients for a secure sum.
        ValueError: the noise leaves no room for the sum in 32 bits.
    """
    config = scenario.secure
    least = choose(clients, config.max_dropout, config.max_colluding).fewest
    if plan is None or not mechanism_of(scenario.privacy).server_noise:
        return SumEncoding(FixedPoint.for_sum(clients, config.range), SumNoise(), least)
    # No value of an update within the clip norm exceeds it.
    largest = scenario.privacy.clip_norm if clip_norm is None else clip_norm
    noise = central_noise(scenario, plan, sites, largest)
    # With all clients in the sum, all shares of the noise are in it too.
    most = max(noise.update / largest, noise.within) * math.sqrt(clients / least)
    return SumEncoding(FixedPoint.for_sum(clients, largest, most * largest), noise, least)
