"""Cohorts are sets of clients, drawn alike by everybody who knows the seed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shoal.server.sampling import cohort

seeds = st.integers(0, 2**31 - 1)
rounds = st.integers(0, 10_000)


@given(seeds, rounds, st.integers(1, 10**9), st.integers(0, 300))
def test_cohort_is_sorted_unique_and_within_bounds(seed: int, round: int, population: int, size: int) -> None:
    found = cohort(seed, round, population, size, "sampling")
    assert len(found) == (population if size == 0 else min(size, population))
    assert 0 <= found[0] <= found[-1] < population
    if not isinstance(found, range):
        assert all(a < b for a, b in pairwise(found))


@given(seeds, rounds, st.integers(1, 10**6), st.integers(1, 50))
def test_cohort_is_drawn_again_alike(seed: int, round: int, population: int, size: int) -> None:
    assert cohort(seed, round, population, size, "sampling") == cohort(
        seed, round, population, size, "sampling"
    )


@given(st.integers(1, 10**9), st.integers(0, 5))
def test_all_clients_cost_nothing(population: int, more: int) -> None:
    assert cohort(0, 1, population, 0, "sampling") == range(population)
    assert cohort(0, 1, population, population + more, "evaluation") == range(population)
