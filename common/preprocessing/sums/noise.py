"""The noise of the sums under `privacy.statistics_epsilon`, and the budget that it spends.

The sums are requested in passes; each pass is one Gaussian mechanism over its whole vector. A vector is a
sequence of blocks, and one unit of privacy (a row, or a client) can change block j by at most Δ_j in the L2
norm. With shares s_j > 0 that add up to 1, block j gets Gaussian noise of standard deviation z · Δ_j /
sqrt(s_j). Divide each block by Δ_j / sqrt(s_j): the noise is then z everywhere, and the vector changes by at
most sqrt(Σ_j s_j) = 1. So a pass is one Gaussian mechanism of noise multiplier z, whatever the shares.
`plan` gives the Δ_j and their reasons; docs/preprocessing.md has the full proofs.

The passes are charged to the same account as training (`StatisticsProtection.charges`), and z is calculated
so that on their own they spend `privacy.statistics_epsilon` in that account. A pass may depend on what
earlier passes published: accounting of Gaussian mechanisms covers such adaptive composition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.privacy.accounting import Charge, solve_noise
from shoal.common.privacy.mechanisms import MECHANISMS, mechanism_of, trusts_server
from shoal.common.privacy.plan import delta_of_names
from shoal.common.schema import Schema
from shoal.common.secure import graph

Unit = Literal["none", "client", "local", "record"]


@dataclass(frozen=True, slots=True)
class StatisticsProtection:
    """The protection of the sums.

    Attributes:
        unit: what the noise protects; "none" without noise.
        multiplier: of the noise of each pass, 0 without.
        charges: upper bound on the cost of all passes, for the account of the run.
        delta: probability that a name of a single unit is published.
        at_client: whether each client adds noise to its vectors; otherwise the server adds it to the sum.
    """

    unit: Unit = "none"
    multiplier: float = 0.0
    charges: tuple[Charge, ...] = ()
    delta: float = 0.0
    at_client: bool = False

    @property
    def noisy(self) -> bool:
        """Whether the sums get noise."""
        return MECHANISMS[self.unit].guarantees


def is_asked_for_sums(scenario: Scenario) -> bool:
    """Whether clients send statistics as vectors for a sum."""
    return scenario.secure.aggregation or scenario.privacy.statistics_epsilon is not None


def protection(schema: Schema, scenario: Scenario) -> StatisticsProtection:
    """Return the protection of a scenario; it is the same for server and clients.

    Raises:
        ConfigError: statistics_epsilon without a unit, or unit "local" with names, which are sent without
            noise.
    """
    privacy = scenario.privacy
    if privacy.statistics_epsilon is None:
        return StatisticsProtection()
    mechanism = mechanism_of(privacy)
    if not mechanism.guarantees:
        raise ConfigError(
            'privacy.statistics_epsilon is set, but privacy.unit is "none"',
            hint='set privacy.unit to what the noise should protect: "record", "client" or "local"',
        )
    named = schema.names("categorical") + schema.names("text")
    if mechanism.norms_apart == 2 and named:
        raise ConfigError(
            'privacy.unit = "local" guarantees noise on everything that a client sends, but the categories '
            f"and words of {', '.join(named)} cannot be sent with noise",
            hint='exclude these columns (data.exclude), or use privacy.unit = "client"',
        )
    refined = bool(schema.names("numeric") or schema.names("sequence"))
    passes = 1 + refined + bool(named)
    solved = solve_noise(
        lambda z: (_charge(z, passes, scenario),),
        privacy.statistics_epsilon,
        privacy.delta - delta_of_names(privacy),
        privacy.accountant,
    )
    # The server knows that a client takes part, and its data could be anything: two of its vectors differ by
    # up to twice the sensitivity of the sum.
    sides = mechanism.norms_apart
    charges = (_charge(solved, passes, scenario),)
    # as in training: a server that sees single clients is trusted to add the noise that protects them
    at_client = not trusts_server(scenario)
    return StatisticsProtection(privacy.unit, solved * sides, charges, delta_of_names(privacy), at_client)


def _charge(multiplier: float, passes: int, scenario: Scenario) -> Charge:
    """Return the charges, with the same kind of neighbours as the rounds (`Charge`)."""
    fixed = scenario.strategy.sampling == "fixed" and scenario.strategy.clients_per_round > 0
    if trusts_server(scenario) and fixed:
        return Charge(multiplier, passes, "fixed", share=1.0)
    return Charge(multiplier, passes)


def client_share(clients: int, scenario: Scenario) -> float:
    """Return the fraction of the noise that each client adds to its own vector, in (0, 1].

    With secure aggregation the noise of all replies adds up, and a certain number of clients is in every sum:
    each adds 1 / sqrt of that number. Otherwise each vector is visible on its own and needs all the noise.

    Args:
        clients: in the session; scenario: the configuration.
    """
    if not scenario.secure.aggregation:
        return 1.0
    config = scenario.secure
    return 1 / math.sqrt(graph.choose(clients, config.max_dropout, config.max_colluding).fewest)


def names_threshold(protection: StatisticsProtection, stddev: float, reach: int) -> float:
    """Return the noisy count above which a name may be published.

    One unit adds at most 1 to at most `reach` names that no other unit has. The probability that the noise
    lifts any of these over the threshold is at most `protection.delta`: this is the threshold of A. Korolova,
    K. Kenthapadi, N. Mishra, A. Ntoulas, "Releasing Search Queries and Clicks Privately", WWW 2009, for
    Gaussian noise.

    Args:
        protection: with noise; stddev: of the noise of a count; reach: maximum number of names of one unit.
    """
    return 1 + stddev * NormalDist().inv_cdf(1 - protection.delta / reach)
