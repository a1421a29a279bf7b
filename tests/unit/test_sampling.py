"""How cohorts are drawn: evenly, in memory and time of the cohort, and independently of each other."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from itertools import combinations

import pytest

from shoal.server.sampling import cohort


def chi_square(counts: list[int], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counts)


def test_every_set_of_clients_is_equally_likely() -> None:
    """2 of 5 clients: 10 pairs, 3,000 draws, 300 expected each.

    Chi-square has 9 degrees of freedom: it is above 27.9 in one of 1,000 fair samplers. The seeds are
    fixed, so the test gives the same number each time.
    """
    drawn = Counter(tuple(cohort(seed, 1, 5, 2, "sampling")) for seed in range(3000))
    assert set(drawn) == set(combinations(range(5), 2))
    assert chi_square(list(drawn.values()), 300) < 27.9


def test_clients_of_a_large_population_are_equally_likely() -> None:
    """20 of 10^6 clients in 1,000 rounds: 20,000 draws over 10 bins of the index, 2,000 expected each."""
    drawn = Counter(c // 100_000 for r in range(1000) for c in cohort(3, r, 10**6, 20, "sampling"))
    assert chi_square([drawn[i] for i in range(10)], 2000) < 27.9


def test_rounds_seeds_and_purposes_draw_their_own() -> None:
    drawn = {
        tuple(cohort(seed, round, 1000, 10, purpose))
        for seed in (0, 1)
        for round in (1, 2)
        for purpose in ("sampling", "evaluation")
    }
    assert len(drawn) == 8


@pytest.mark.parametrize("population", [10**6, 10**9])
def test_memory_and_time_grow_with_the_cohort_only(population: int) -> None:
    cohort(0, 1, 100, 10, "sampling")  # what is imported and cached on first use
    tracemalloc.start()
    try:
        started = time.perf_counter()
        found = cohort(0, 1, population, 1000, "sampling")
        seconds = time.perf_counter() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 1000
    assert peak < 1_000_000  # bytes; one byte for each client of 10^6 would already break it
    assert seconds < 0.5


def test_a_known_cohort() -> None:
    """Pins the draw: a change here means that old runs can no longer be repeated."""
    assert cohort(1, 1, 100, 5, "sampling") == [53, 62, 70, 97, 99]
