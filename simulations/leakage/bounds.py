"""A lower bound on epsilon from guesses about canaries in one training run.

Source: Steinke, Nasr, Jagielski: Privacy Auditing with One (1) Training Run, NeurIPS 2023, Theorem 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_MOST_EPSILON: Final = 100.0
_FEWEST_GUESSES: Final = 8  # with fewer, even all correct guesses prove nothing at 95 %


@dataclass(frozen=True, slots=True)
class Bound:
    """The lower bound that guesses prove.

    Attributes:
        epsilon: lower bound at the requested confidence; 0 proves nothing.
        guesses: number made; correct: number of correct ones; for the other canaries no guess was made.
    """

    epsilon: float
    guesses: int
    correct: int


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return a bound on the probability of this many correct guesses if training is (epsilon, delta)-private.

    Each canary is included by an independent fair coin. With f(v) = P[Binomial(guesses, e^eps / (1 + e^eps))
    >= v] the bound is f(correct) + 2 canaries delta max over i >= 1 of (f(correct - i) - f(correct)) / i.

    Args:
        canaries: total number; guesses: number made; correct: number of correct ones.
        epsilon, delta: the guarantee under test.
    """
    right = 1 / (1 + np.exp(-epsilon))
    at_least = float(stats.binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return at_least
    fewer = np.arange(1, correct + 1)
    gained = stats.binom.sf(correct - fewer - 1, guesses, right) - at_least
    return min(1.0, at_least + 2 * canaries * delta * float((gained / fewer).max()))


def epsilon_at_least(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest epsilon that these guesses refute, to 1e-4 from below; 0 if they refute none."""
    low, high = 0.0, _MOST_EPSILON
    if p_value(canaries, guesses, correct, low, delta) > 1 - confidence:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if p_value(canaries, guesses, correct, middle, delta) > 1 - confidence:
            high = middle
        else:
            low = middle
    return low


def best_bound(
    scores: NDArray[np.float64], included: NDArray[np.bool_], delta: float, confidence: float = 0.95
) -> Bound:
    """Guess "included" for the highest scores and "not included" for the lowest; return the lower bound.

    The best number of guesses is unknown: all, a half, a quarter and so on are tried, and the error
    probability is divided among these tries, so that the best may be used (Bonferroni).

    Args:
        scores: (canaries,), higher says "included"; included: the coins.
        delta: of the guarantee; confidence: that the bound holds.
    """
    order = np.argsort(scores, kind="stable")
    sizes = _sizes(len(scores))
    each = 1 - (1 - confidence) / max(1, len(sizes))
    found = [Bound(0.0, 0, 0)]
    for size in sizes:
        half = size // 2
        correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
        found.append(Bound(epsilon_at_least(len(scores), 2 * half, correct, delta, each), 2 * half, correct))
    return max(found, key=lambda bound: (bound.epsilon, bound.guesses))


def _sizes(canaries: int) -> Sequence[int]:
    sizes = []
    while canaries >= _FEWEST_GUESSES:
        sizes.append(canaries)
        canaries //= 2
    return sizes
