"""The malicious clients of a simulation: which clients they are, and their shared state in one process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.adversary import Arrays, Honest
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.origin import Origin
from shoal.common.schema import InputSpec, Population
from shoal.common.seeds import generator
from shoal.common.vectors import flatten, unflatten
from shoal.simulations.attacks.attack import Attack, AttackContext, Matrix
from shoal.simulations.attacks.catalog import ATTACKS, NONE, check, check_schema
from shoal.simulations.attacks.colluding import Colluding


def malicious_clients(seed: int, clients: int, fraction: float) -> frozenset[int]:
    """Return the indices of the malicious clients: ⌊fraction · clients⌋ of them, and at least one.

    Args:
        seed: the run's; each set of this size is equally likely.
        clients: in the federation; fraction: in (0, 1).
    """
    count = max(1, math.floor(fraction * clients + 1e-9))  # 0.29 · 100 is 28.999999999999996
    rng = generator(seed, "attack")
    return frozenset(rng.choice(clients, count, replace=False).tolist())


@dataclass(frozen=True, slots=True)
class _ColluderUpdates:
    """The honest updates of colluders in one round."""

    round: int
    updates: Matrix


class PlayedAdversary:
    """Simulates the malicious clients of one process.

    Args:
        attack: the attack of all of them; malicious: their indices.
        context: what they know.
    """

    def __init__(self, attack: Attack, malicious: frozenset[int], context: AttackContext) -> None:
        self.attack = attack
        self.malicious = malicious
        self._context = context
        self._cached: _ColluderUpdates | None = None

    def poisoned(
        self, x: NDArray[Any], y: NDArray[Any], spec: InputSpec, origin: Origin
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the rows that a client trains on; `spec` describes them. Honest clients keep their own."""
        if origin.client not in self.malicious:
            return x, y
        return self.attack.poison(x, y, spec, self._context, origin.rng("attack"))

    def altered(self, update: Arrays, origin: Origin, honest: Honest) -> list[NDArray[Any]]:
        """Return the update that a client sends: what it has learnt, unless it is malicious.

        Args:
            update: what an honest client would send; origin: who sends it.
            honest: returns what colluders would send.
        """
        if origin.client not in self.malicious:
            return list(update)
        updates = flatten(update, np.float64)[None, :]
        if isinstance(self.attack, Colluding):
            colluders = self._colluders(self.attack, origin.dispatch, honest)
            updates = colluders if len(colluders) else updates
        with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, and its client is refused
            return unflatten(self.attack.forge(updates, self._context, origin), update)

    def _colluders(self, attack: Colluding, round_number: int, honest: Honest) -> Matrix:
        """Return colluders' honest updates; the last round's are kept, because all attackers need them."""
        if self._cached is None or self._cached.round != round_number:
            found = [flatten(one, np.float64) for one in honest(sorted(self.malicious)[: attack.colluders])]
            updates = np.stack(found) if found else np.empty((0, 0))
            self._cached = _ColluderUpdates(round_number, updates)
        return self._cached.updates


def make_adversary(scenario: Scenario, population: Population) -> PlayedAdversary | None:
    """Return the malicious clients of a scenario, or `None` if it has no attack.

    Raises:
        ConfigError: the attack, its arguments or the data do not fit each other.
    """
    config, schema = scenario.attack, population.schema
    problems = check(config) or check_schema(config, schema)
    if problems:
        raise ConfigError(problems)
    if config.kind == NONE:
        return None
    clients = len(population)
    if clients < 2:
        raise ConfigError("attack.kind: needs at least 2 clients, one of them honest, but there is 1")
    malicious = malicious_clients(scenario.seed, clients, config.fraction)
    cohort = min(clients, scenario.strategy.clients_per_round or clients)
    expected = max(1, round(len(malicious) * cohort / clients))
    context = AttackContext(cohort, expected, schema.num_classes)
    return PlayedAdversary(ATTACKS[config.kind].kind(**config.args), malicious, context)
