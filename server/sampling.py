"""Draws the clients of a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.common.config import StrategyConfig
from shoal.common.privacy.noise import Randomness, Source, randomness
from shoal.common.seeds import Purpose, generator


def train_cohort(
    strategy: StrategyConfig, seed: int, round: int, population: int, source: Source
) -> Sequence[int]:
    """Draw the clients that train in a round, as strategy.sampling says.

    Args:
        strategy: gives sampling and clients_per_round; seed: the run's seed.
        round: starting at 1; population: number of clients, at least 1.
        source: of the draw. With "system" nobody can tell who took part, which privacy by sampling needs.

    Returns:
        Client indices in ascending order; with "poisson" perhaps none.
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
    """Draw clients without replacement, every set of `size` clients being equally likely.

    Time and memory grow with the cohort, not with the population: Floyd's algorithm (Bentley, Floyd:
    Programming Pearls, CACM 30(9), 1987).

    Args:
        seed: the run's seed; round: starting at 1, 0 for draws outside rounds.
        population: number of clients, at least 1.
        size: clients to draw; 0, or as many as there are, gives all of them.
        purpose: "sampling" or "evaluation", which draw independently.

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
