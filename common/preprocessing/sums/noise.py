"""How much noise the sums get under `privacy.statistics_epsilon`, and what that spends.

The sums are asked for in passes; each pass is one Gaussian mechanism over its whole vector. A vector is a run
of blocks, and one unit of privacy (a row, or a client) can move block j by at most Δ_j in the L2 norm. With
shares s_j > 0 that add up to 1, block j gets Gaussian noise of standard deviation z · Δ_j / sqrt(s_j). Divide
each block by Δ_j / sqrt(s_j): the noise is then z everywhere, and the vector moves by at most
sqrt(Σ_j s_j) = 1. So a pass is one Gaussian mechanism of noise multiplier z, whatever the shares.
`layout` gives the Δ_j and proves them; docs/preprocessing.md has the proofs in full.

k passes with multiplier z are together one Gaussian mechanism with multiplier z / sqrt(k), whose epsilon is
known exactly: Borja Balle, Yu-Xiang Wang, "Improving the Gaussian Mechanism for Differential Privacy",
ICML 2018, theorem 8. Each pass may depend on the published results of those before (adaptive composition).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from common.config import Scenario
from common.errors import ConfigError
from common.schema import Schema

Unit = Literal["none", "client", "local", "record"]
# Part of privacy.delta for a name of one unit that is published against all odds (`names_threshold`).
_NAMES_SHARE: Final = 1e-3


class Normal(Protocol):
    """A source of standard normal numbers, such as `numpy.random.Generator`."""

    def standard_normal(self, size: int) -> NDArray[np.float64]:
        """Draw `size` of them."""
        ...


@dataclass(frozen=True, slots=True)
class Protection:
    """What protects the sums.

    Attributes:
        unit: whom the noise protects; "none" where there is none.
        multiplier: of the noise of each pass, 0 without.
        passes: how many passes have noise; together they spend `statistics_epsilon`.
        delta: chance that a name which only one unit has is published.
    """

    unit: Unit = "none"
    multiplier: float = 0.0
    passes: int = 0
    delta: float = 0.0

    @property
    def noisy(self) -> bool:
        """Whether the sums get noise."""
        return self.unit != "none"

    @property
    def at_client(self) -> bool:
        """Whether each client adds noise to what it tells; else the server does, to the sum."""
        return self.unit in ("record", "local")


def is_asked_for_sums(scenario: Scenario) -> bool:
    """Tell whether statistics are told as vectors for a sum."""
    return scenario.secure.aggregation or scenario.privacy.statistics_epsilon is not None


def protection(schema: Schema, scenario: Scenario) -> Protection:
    """Return the protection that the scenario asks for; server and clients get the same.

    Raises:
        ConfigError: statistics_epsilon without a unit, or local noise for names, which have to be told as
            they are.
    """
    privacy = scenario.privacy
    if privacy.statistics_epsilon is None:
        return Protection()
    if privacy.unit == "none":
        raise ConfigError(
            'privacy.statistics_epsilon is set, but privacy.unit is "none"',
            hint="say whom the noise shall protect: record, client or local",
        )
    named = schema.names("categorical") + schema.names("text")
    if privacy.unit == "local" and named:
        raise ConfigError(
            f'privacy.unit = "local" promises noise on all that a client tells, but categories and words of '
            f"{', '.join(named)} cannot be told with noise",
            hint='leave the columns out (data.exclude), or use privacy.unit = "client"',
        )
    refined = bool(schema.names("numeric") or schema.names("sequence"))
    passes = 1 + refined + bool(named)
    multiplier = solve_multiplier(privacy.statistics_epsilon, privacy.delta * (1 - _NAMES_SHARE), passes)
    return Protection(privacy.unit, multiplier, passes, privacy.delta * _NAMES_SHARE)


def gaussian_delta(epsilon: float, multiplier: float, passes: int = 1) -> float:
    """Return the smallest delta at which `passes` Gaussian mechanisms are (epsilon, delta)-private.

    Args:
        epsilon: at least 0; multiplier: noise over sensitivity of each; passes: how many.
    """
    mu = math.sqrt(passes) / multiplier
    normal = NormalDist()
    below = normal.cdf(-mu / 2 - epsilon / mu)
    # e^ε may be larger than a float holds where the probability that it multiplies is 0
    second = math.exp(epsilon + math.log(below)) if below > 0 else 0.0
    return max(0.0, normal.cdf(mu / 2 - epsilon / mu) - second)


def solve_multiplier(epsilon: float, delta: float, passes: int) -> float:
    """Return the smallest noise multiplier, to 1 in 10⁹, of `passes` passes for (epsilon, delta)."""
    low, high = 1e-4, 1e8
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gaussian_delta(epsilon, middle, passes) > delta else (low, middle)
    return high


def client_share(asked: int, scenario: Scenario) -> float:
    """Return the part of the noise that each client adds to its own vector, in (0, 1].

    Under secure aggregation the noise of all that answer adds up, and as many answer as the protocol needs
    for a sum at all: each adds 1 / sqrt of that number. In the clear each vector is seen alone and needs it
    all.
    """
    if not scenario.secure.aggregation:
        return 1.0
    return 1 / math.sqrt(max(1, math.ceil((1 - scenario.secure.max_dropout) * asked)))


def names_threshold(protection: Protection, stddev: float, reach: int) -> float:
    """Return the noisy count above which a name may be published.

    One unit adds at most 1 to at most `reach` names that nobody else has. The chance that the noise carries
    any of these over the threshold is at most `protection.delta`: this is the threshold of A. Korolova,
    K. Kenthapadi, N. Mishra, A. Ntoulas, "Releasing Search Queries and Clicks Privately", WWW 2009, for
    Gaussian noise.

    Args:
        protection: noisy; stddev: of the noise of a count; reach: most names of one unit.
    """
    return 1 + stddev * NormalDist().inv_cdf(1 - protection.delta / reach)
