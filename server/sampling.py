"""Samples the clients of a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.common.config import StrategyConfig
from shoal.common.privacy.noise import Randomness, Source, randomness
from shoal.common.seeds import Purpose, generator


def train_cohort(
    strategy: StrategyConfig, seed: int, round: int, population: int, source: Source
) -> Sequence[int]:
    """Sample the clients that train in a round, as strategy.sampling says.

    Args:
        strategy: gives sampling and clients_per_round; seed: the run's seed.
        round: starting at 1; population: number of clients, at least 1.
        source: of randomness. With "system" nobody can tell who took part, as privacy amplification by
            sampling requires.

    Returns:
        Client indices in ascending order; with "poisson" possibly none.
    """
    size = strategy.clients_per_round
    if size == 0 or size >= population:
        return range(population)
    if strategy.sampling == "fixed" and source == "seeded":
        return cohort(seed, round, population, size, "sampling")
    draws: Randomness = randomness(source, seed, "sampling", dispatch=round)
    keys = draws.random(population)
    chosen = (
        np.flatnonzero(keys < size / population)
        if strategy.sampling == "poisson"
        else np.sort(np.argpartition(keys, size)[:size])
    )
    found: list[int] = chosen.tolist()
    return found


def cohort(seed: int, round: int, population: int, size: int, purpose: Purpose) -> Sequence[int]:
    """Sample clients without replacement, every set of `size` clients being equally likely.

    Time and memory grow with the cohort, not with the population: Floyd's algorithm (Bentley, Floyd:
    Programming Pearls, CACM 30(9), 1987).

    Args:
        seed: the run's seed; round: starting at 1, 0 for draws outside rounds.
        population: number of clients, at least 1.
        size: clients to sample; 0, or at least the population, takes all of them.
        purpose: "sampling" or "evaluation", which are sampled independently.

    Returns:
        Client indices in ascending order; a `range` where all are taken.
    """
    if size == 0 or size >= population:
        return range(population)
    rng = generator(seed, purpose, dispatch=round)
    last = np.arange(population - size, population)
    drawn: set[int] = set()
    for top, candidate in zip(last.tolist(), rng.integers(last + 1).tolist(), strict=True):
        drawn.add(top if candidate in drawn else candidate)
    return sorted(drawn)
