"""The malicious clients of a simulation: which clients they are, and their shared state in one process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.adversary import Honest, Weights
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.origin import Origin
from shoal.common.schema import InputSpec, Population
from shoal.common.seeds import generator
from shoal.simulations.attacks.attack import Attack, AttackContext, Matrix, Vector
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
    """The honest updates of the colluders in one round from one model."""

    round: int
    start: Vector
    updates: Matrix


class SimulatedAdversary:
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

    def altered(self, start: Weights, trained: Weights, origin: Origin, honest: Honest) -> list[NDArray[Any]]:
        """Return the weights that a client sends; an honest client sends what it trained.

        Args:
            start: the server's weights; trained: what an honest client would send; origin: the sender.
            honest: returns what the given clients would honestly send.
        """
        if origin.client not in self.malicious:
            return list(trained)
        begin = _flat(start)
        updates = (_flat(trained) - begin)[None, :]
        if isinstance(self.attack, Colluding):
            shared = self._colluders_updates(self.attack, begin, origin.round, honest)
            updates = shared if len(shared) else updates
        return _unflat(begin + self.attack.forge(updates, self._context, origin), trained)

    def _colluders_updates(
        self, attack: Colluding, begin: Vector, round_number: int, honest: Honest
    ) -> Matrix:
        """Return the colluders' honest updates; cached for the round, because all attackers need them."""
        cached = self._cached
        if cached is None or cached.round != round_number or not np.array_equal(cached.start, begin):
            found = [_flat(w) - begin for w in honest(sorted(self.malicious)[: attack.colluders])]
            cached = self._cached = _ColluderUpdates(round_number, begin, np.reshape(found, (-1, len(begin))))
        return cached.updates


def make_adversary(scenario: Scenario, population: Population) -> SimulatedAdversary | None:
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
    return SimulatedAdversary(ATTACKS[config.kind].kind(**config.args), malicious, context)


def _flat(weights: Weights) -> Vector:
    return np.concatenate([np.ravel(w).astype(np.float64) for w in weights])


def _unflat(numbers: Vector, like: Weights) -> list[NDArray[Any]]:
    """Return numbers as weights shaped like `like`; integer weights are copied from `like`."""
    parts = np.split(numbers, np.cumsum([w.size for w in like])[:-1])
    with np.errstate(over="ignore"):  # an update beyond float32 becomes infinite, and is then refused
        return [
            part.reshape(w.shape).astype(w.dtype) if np.issubdtype(w.dtype, np.floating) else w
            for part, w in zip(parts, like, strict=True)
        ]
