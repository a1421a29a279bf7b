"""The graph of masks between clients, and the number of shares that recover a secret.

In a cohort of up to `COMPLETE` clients all clients are neighbours. In larger cohorts clients are on a ring in
random order, and each has the k/2 nearest on either side as neighbours (a Harary graph), as in Bell,
Bonawitz,
Gascón, Lepoint, Raykova: Secure Single-Server Aggregation with (Poly)Logarithmic Overhead, CCS 2020. Of n
clients, up to C = ⌊max_colluding · n⌋ collude with the server and up to D = ⌊max_dropout · n⌋ drop out. k is
the smallest and then t the largest number for which, over the random order,

- the C colluding clients recover no client's secret from t of its k shares, except with probability 2^-40
  (`SECRECY`);
- the other clients that stay are connected, so that only the sum of all of them is free of masks, except with
  probability 2^-40: they are disconnected only if two stretches of k/2 on the ring drop out or collude;
- each needed secret has t shares left, except with probability 2^-20 (`RECOVERY`).

Each probability is for any of the n clients of a session (union bound), of hypergeometric draws. In a
complete graph all three hold with certainty if C + D ≤ n - 2.

Deviations from the paper: a client keeps a share of its own secret, as in Bonawitz et al. 2017, which lets
small cohorts lose one more client; the second bound counts both stretches, where the paper counts one.
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
_ROUNDING: Final = 1e-9
FEWEST: Final = 3  # with two clients, each learns the other's update from the sum


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a cohort.

    Attributes:
        clients: in the cohort, without those that sent no keys; neighbours: k, per client.
        threshold: t, the number of shares that recover a secret.
        least: minimum number of clients that must stay to the end.
        colluding: C, the number of colluding clients that learn nothing.
    """

    clients: int
    neighbours: int
    threshold: int
    least: int
    colluding: int

    @property
    def fewest(self) -> int:
        """Number of clients that are certain to be in a sum, even if the server lies about who stayed.

        Every client in the sum, or a neighbour that reveals its secret, has been told that t of its window
        of k + 1 places are in it. In a complete graph that is the whole sum. On a ring, count the clients in
        the windows of all n places, (k + 1) · s for a sum of s: each place in the sum has at least t, and one
        at distance d from the sum at least t - d. A gap in the sum has at most g = k + 1 - t places, as the
        client beside it would miss more, if t > k/2 + 1; over a gap, d is (g + 1)² / 4g on average at most.
        So (k + 1) · s ≥ t · s + (n - s) · (t - (g + 1)² / 4g).

        It supposes that the server tells all clients the same (`resists_split_view`).
        """
        window, t = self.neighbours + 1, self.threshold
        gap = window - t
        if window >= self.clients or 2 * t <= window + 1:
            return t
        if not gap:
            return self.clients
        distance = (gap + 1) ** 2 / (4 * gap)
        return math.ceil(self.clients * (t - distance) / (window - distance) - _ROUNDING)

    @property
    def resists_split_view(self) -> bool:
        """Whether a client's update stays secret even if the server sends others different survivor lists.

        The server would need t shares of both the mask key and the seed; an honest neighbour gives one of
        them.
        """
        return 2 * self.threshold > self.neighbours + 1 + min(self.colluding, self.neighbours)


@lru_cache(maxsize=64)
def choose(clients: int, max_dropout: float, max_colluding: float) -> Parameters:
    """Return the parameters of a cohort.

    Args:
        clients: n; max_dropout, max_colluding: fractions of them.

    Raises:
        ConfigError: the cohort is so small that the sum would reveal a single client.
    """
    dropped, colluding = math.floor(max_dropout * clients), math.floor(max_colluding * clients)
    least = clients - dropped
    if clients < FEWEST or least - colluding < 2:
        raise ConfigError(
            f"secure aggregation of {clients} clients, of which {dropped} may drop out and {colluding} "
            f"collude: at least {FEWEST} are needed, and 2 that neither drop out nor collude. Add clients, "
            "or lower secure.max_dropout or secure.max_colluding"
        )
    if clients > COMPLETE:
        for k in range(2, clients - 1, 2):
            if (threshold := _threshold(clients, k, dropped, colluding)) is not None:
                return Parameters(clients, k, threshold, least, colluding)
    # As many shares as are certain to remain: the largest number that a server must collect.
    return Parameters(clients, clients - 1, least, least, colluding)


def _threshold(n: int, k: int, dropped: int, colluding: int) -> int | None:
    """Return the largest threshold for which k neighbours meet all three bounds, or `None`."""
    if 2 * math.log2(n) - 1 + _all_among(k, dropped + colluding, n) > math.log2(SECRECY):
        return None
    import numpy as np
    from scipy.stats import hypergeom  # takes half a second to import

    t = np.arange(2, k + 1)
    revealed = n * hypergeom.sf(t - 1, n - 1, colluding, k)
    # A client that stays also has its own share; for one that dropped out, only its neighbours have shares.
    lost = (n - dropped) * hypergeom.sf(k + 1 - t, n - 1, dropped, k)
    if dropped:
        lost = lost + dropped * hypergeom.sf(k - t, n - 1, dropped - 1, k)
    fits = t[(revealed <= SECRECY) & (lost <= RECOVERY)]
    return int(fits[-1]) if len(fits) else None


def _all_among(k: int, marked: int, n: int) -> float:
    """Return log2 of the probability that k given places of a random order of n are all marked."""
    return -math.inf if k > marked else sum(math.log2((marked - i) / (n - i)) for i in range(k))


def neighbours(order: Sequence[int], k: int) -> dict[int, list[int]]:
    """Return the neighbours of each client, ascending.

    Args:
        order: the clients in the order of the ring, which must be unpredictable.
        k: even, or the number of clients minus one.

    Raises:
        ValueError: there is no such graph.
    """
    n = len(order)
    if k == n - 1:
        return {u: sorted(v for v in order if v != u) for u in order}
    if k % 2 or not 0 < k < n:
        raise ValueError(f"there is no ring of {n} clients with {k} neighbours each")
    steps = [s for s in range(-(k // 2), k // 2 + 1) if s]
    return {u: sorted(order[(i + s) % n] for s in steps) for i, u in enumerate(order)}
