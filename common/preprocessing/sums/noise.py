"""How much noise the sums get under `privacy.statistics_epsilon`, and what that spends.

The sums are asked for in passes; each pass is one Gaussian mechanism over its whole vector. A vector is a run
of blocks, and one unit of privacy (a row, or a client) can move block j by at most Δ_j in the L2 norm. With
shares s_j > 0 that add up to 1, block j gets Gaussian noise of standard deviation z · Δ_j / sqrt(s_j). Divide
each block by Δ_j / sqrt(s_j): the noise is then z everywhere, and the vector moves by at most
sqrt(Σ_j s_j) = 1. So a pass is one Gaussian mechanism of noise multiplier z, whatever the shares.
`plan` gives the Δ_j and proves them; docs/preprocessing.md has the proofs in full.

The passes are charged to the same account as training (`StatisticsProtection.charges`), and z is solved for
so that by themselves they spend `privacy.statistics_epsilon` as that account adds up. Each pass may depend on
what those before published: accounts of Gaussian mechanisms hold for such adaptive composition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.privacy.accounting import Charge, solve_noise
from shoal.common.privacy.mechanisms import MECHANISMS, mechanism_of
from shoal.common.privacy.plan import delta_of_names
from shoal.common.schema import Schema
from shoal.common.secure import graph

Unit = Literal["none", "client", "local", "record"]


@dataclass(frozen=True, slots=True)
class StatisticsProtection:
    """What protects the sums.

    Attributes:
        unit: whom the noise protects; "none" where there is none.
        multiplier: of the noise of each pass, 0 without.
        charges: what all passes together cost, at most: for the account of the run.
        delta: chance that a name which only one unit has is published.
        at_client: whether each client adds noise to what it tells; else the server does, to the sum.
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
    """Tell whether statistics are told as vectors for a sum."""
    return scenario.secure.aggregation or scenario.privacy.statistics_epsilon is not None


def protection(schema: Schema, scenario: Scenario) -> StatisticsProtection:
    """Return the protection that the scenario asks for; server and clients get the same.

    Raises:
        ConfigError: statistics_epsilon without a unit, or local noise for names, which have to be told as
            they are.
    """
    privacy = scenario.privacy
    if privacy.statistics_epsilon is None:
        return StatisticsProtection()
    mechanism = mechanism_of(privacy)
    if not mechanism.guarantees:
        raise ConfigError(
            'privacy.statistics_epsilon is set, but privacy.unit is "none"',
            hint="say whom the noise shall protect: record, client or local",
        )
    named = schema.names("categorical") + schema.names("text")
    if mechanism.norms_apart == 2 and named:
        raise ConfigError(
            'privacy.unit = "local" guarantees noise on all that a client sends, but categories and words '
            f"cannot be sent with noise: those of {', '.join(named)}",
            hint='leave the columns out (data.exclude), or use privacy.unit = "client"',
        )
    refined = bool(schema.names("numeric") or schema.names("sequence"))
    passes = 1 + refined + bool(named)
    solved = solve_noise(
        lambda z: (_charge(z, passes, scenario),),
        privacy.statistics_epsilon,
        privacy.delta - delta_of_names(privacy),
        privacy.accountant,
    )
    # That a client takes part is no secret to the server, and it could hold anything: two vectors of it
    # differ by up to twice what one moves a sum by.
    sides = mechanism.norms_apart
    charges = (_charge(solved, passes, scenario),)
    # as in training: a server that sees single clients is trusted with the noise that protects whole ones
    at_client = not mechanism.server_noise or scenario.secure.aggregation
    return StatisticsProtection(privacy.unit, solved * sides, charges, delta_of_names(privacy), at_client)


def _charge(multiplier: float, passes: int, scenario: Scenario) -> Charge:
    """Return what is charged; of the kind of neighbours that the rounds have (`Charge`)."""
    fixed = scenario.strategy.sampling == "fixed" and scenario.strategy.clients_per_round > 0
    if mechanism_of(scenario.privacy).server_noise and fixed:
        return Charge(multiplier, passes, "fixed", share=1.0)
    return Charge(multiplier, passes)


def client_share(asked: int, scenario: Scenario) -> float:
    """Return the part of the noise that each client adds to its own vector, in (0, 1].

    Under secure aggregation the noise of all that answer adds up, and as many answer as the protocol needs
    for a sum at all: each adds 1 / sqrt of that number. In the clear each vector is seen alone and needs it
    all.
    """
    if not scenario.secure.aggregation:
        return 1.0
    config = scenario.secure
    return 1 / math.sqrt(graph.choose(asked, config.max_dropout, config.max_colluding).least)


def names_threshold(protection: StatisticsProtection, stddev: float, reach: int) -> float:
    """Return the noisy count above which a name may be published.

    One unit adds at most 1 to at most `reach` names that nobody else has. The chance that the noise carries
    any of these over the threshold is at most `protection.delta`: this is the threshold of A. Korolova,
    K. Kenthapadi, N. Mishra, A. Ntoulas, "Releasing Search Queries and Clicks Privately", WWW 2009, for
    Gaussian noise.

    Args:
        protection: noisy; stddev: of the noise of a count; reach: most names of one unit.
    """
    return 1 + stddev * NormalDist().inv_cdf(1 - protection.delta / reach)
