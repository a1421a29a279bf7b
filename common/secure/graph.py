"""Who masks against whom, and how many shares give a secret back.

In a cohort of up to `COMPLETE` clients everybody masks against everybody. In larger ones clients sit on a
ring in a random order, and each masks against the k/2 nearest on either side (a Harary graph), as in Bell,
Bonawitz, Gascón, Lepoint, Raykova: Secure Single-Server Aggregation with (Poly)Logarithmic Overhead,
CCS 2020. Of n clients, up to C = ⌊max_colluding · n⌋ work with the server and up to D = ⌊max_dropout · n⌋
are lost. k is the least and then t the largest number with which, over the random order,

- the C tell no client's secret, having t of its k shares, but for a chance of 2^-40 (`SECRECY`);
- the other clients that stay are connected, so that only the sum of them all is free of masks, but for a
  chance of 2^-40: they fall apart only if two stretches of k/2 on the ring are lost or collude;
- each secret that is needed has t shares left, but for a chance of 2^-20 (`RECOVERY`).

Each chance is for any of the n clients of a session (union bound), of hypergeometric draws. In a complete
graph all three hold for certain where C + D ≤ n - 2. Deviations from the paper: a client keeps a share of
its own, as in Bonawitz et al. 2017, which lets small cohorts lose one client more; the third bound counts
both stretches, where the paper counts one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shoal.common.errors import ConfigError

COMPLETE: Final = 64  # clients up to which the graph is complete
SECRECY: Final = 2.0**-40
RECOVERY: Final = 2.0**-20
FEWEST: Final = 3  # with two, each knows the other's update from the sum


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a cohort needs.

    Attributes:
        clients: in the cohort, after those that gave no keys; neighbours: k, of each of them.
        threshold: t, shares that give a secret back.
        least: clients that have to stay to the end.
        colluding: C, of whom the other clients' updates stay secret.
    """

    clients: int
    neighbours: int
    threshold: int
    least: int
    colluding: int

    @property
    def withstands_two_stories(self) -> bool:
        """Whether a client stays secret even if the server tells others different survivors.

        It would need t shares of the mask key and t of the seed; a holder gives one, a colluding one both.
        """
        return 2 * self.threshold > self.neighbours + 1 + min(self.colluding, self.neighbours)


@lru_cache(maxsize=64)
def choose(clients: int, max_dropout: float, max_colluding: float) -> Parameters:
    """Return the parameters of a cohort.

    Args:
        clients: n; max_dropout, max_colluding: shares of them.

    Raises:
        ConfigError: the cohort is so small that the sum would tell of a single client.
    """
    dropped, colluding = math.floor(max_dropout * clients), math.floor(max_colluding * clients)
    least = clients - dropped
    if clients < FEWEST or least - colluding < 2:
        raise ConfigError(
            f"secure aggregation of {clients} clients, of whom {dropped} may be lost and {colluding} "
            f"collude: at least {FEWEST} are needed, and 2 that neither are lost nor collude. Add clients, "
            "or lower secure.max_dropout or secure.max_colluding"
        )
    if clients > COMPLETE:
        for k in range(2, clients - 1, 2):
            if (threshold := _threshold(clients, k, dropped, colluding)) is not None:
                return Parameters(clients, k, threshold, least, colluding)
    # As many shares as can be counted on: the most that a server would have to collect.
    return Parameters(clients, clients - 1, least, least, colluding)


def _threshold(n: int, k: int, dropped: int, colluding: int) -> int | None:
    """Return the largest threshold with which k neighbours meet all three bounds, or `None`."""
    if 2 * math.log2(n) - 1 + _all_among(k, dropped + colluding, n) > math.log2(SECRECY):
        return None
    import numpy as np
    from scipy.stats import hypergeom  # takes half a second to import

    t = np.arange(2, k + 1)
    told = n * hypergeom.sf(t - 1, n - 1, colluding, k)
    # One that stays has its own share beside its neighbours'; one that is lost has not.
    lost = (n - dropped) * hypergeom.sf(k + 1 - t, n - 1, dropped, k)
    if dropped:
        lost = lost + dropped * hypergeom.sf(k - t, n - 1, dropped - 1, k)
    fits = t[(told <= SECRECY) & (lost <= RECOVERY)]
    return int(fits[-1]) if len(fits) else None


def _all_among(k: int, marked: int, n: int) -> float:
    """Return log2 of the chance that k given places of a random order of n hold marked ones only."""
    return -math.inf if k > marked else sum(math.log2((marked - i) / (n - i)) for i in range(k))


def neighbours(order: Sequence[int], k: int) -> dict[int, list[int]]:
    """Return the neighbours of each client, ascending.

    Args:
        order: the clients in the order of the ring, which nobody may have known beforehand.
        k: even, or one less than there are clients.

    Raises:
        ValueError: there is no such graph.
    """
    n = len(order)
    if k == n - 1:
        return {u: sorted(v for v in order if v != u) for u in order}
    if k % 2 or not 0 < k < n:
        raise ValueError(f"no ring of {n} clients has {k} neighbours each")
    steps = [s for s in range(-(k // 2), k // 2 + 1) if s]
    return {u: sorted(order[(i + s) % n] for s in steps) for i, u in enumerate(order)}
