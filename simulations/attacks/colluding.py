"""Attacks of malicious clients that share their rows, and so know each other's honest updates.

All of them send the same update, whose rows they have worked out alike: by training on the rows of the first
`colluders` malicious clients, from the server's weights, as those would have done honestly.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from shoal.common.origin import Origin
from shoal.simulations.attacks.attack import Attack, AttackContext, Matrix, Vector


class Colluding(Attack):
    """What both attacks share.

    Args:
        colluders: malicious clients at most whose honest updates are worked out; each costs a training in
            every process that has an attacker.
    """

    def __init__(self, colluders: int) -> None:
        self.colluders = colluders


class Alie(Colluding):
    """Moves each number as far from the mean as still looks usual.

    Source: Baruch, Baruch, Goldberg: A Little Is Enough: Circumventing Defenses For Distributed Learning,
    NeurIPS 2019 (the attack that prevents convergence).

    Deviations: mean and standard deviation are those of the malicious clients' honest updates, as in the
    paper; n and m are those of a round as they may be expected. With one malicious client the standard
    deviation is 0, and what is sent is honest.

    Args:
        z: standard deviations to move; `None` takes the paper's z_max, which is 0 where the attackers are
            too few.
        colluders: as for `Colluding`.
    """

    def __init__(self, z: float | None = None, colluders: int = 10) -> None:
        super().__init__(colluders)
        self._z = z

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return mean - z · standard deviation of each number."""
        z = z_max(context.clients, context.malicious) if self._z is None else self._z
        return np.asarray(updates.mean(axis=0) - z * updates.std(axis=0))


def z_max(clients: int, malicious: int) -> float:
    """Return the paper's z: the largest at which enough honest clients are further out than the attackers.

    s = ⌊n / 2 + 1⌋ - m honest ones have to be (at least 1), so Φ(z) = (n - m - s) / (n - m).
    """
    honest = clients - malicious
    supporters = max(1, clients // 2 + 1 - malicious)
    share = (honest - supporters) / honest if honest > 0 else 0.0
    return max(0.0, NormalDist().inv_cdf(share)) if share > 0 else 0.0


class MinMax(Colluding):
    """Moves as far as it can without being further from an honest update than two of those are apart.

    Source: Shejwalkar, Houmansadr: Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
    Defenses for Federated Learning, NDSS 2021 (Min-Max, without knowledge of the rule or of others'
    updates), with the inverse standard deviation as direction.

    Deviation: the largest γ is found exactly, from a quadratic inequality a client, not by halving steps.
    With one malicious client there is no distance, and what is sent is honest.

    Args:
        colluders: as for `Colluding`.
    """

    def __init__(self, colluders: int = 10) -> None:
        super().__init__(colluders)

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return mean + γ · (- standard deviation), with the largest γ."""
        mean, direction = updates.mean(axis=0), -updates.std(axis=0)
        return np.asarray(mean + largest_step(updates, mean, direction) * direction)


def largest_step(updates: Matrix, mean: Vector, direction: Vector) -> float:
    """Return the largest γ with ‖mean + γ · direction - u_i‖ ≤ max_jk ‖u_j - u_k‖ for each update u_i.

    γ²‖p‖² + 2γ⟨p, m - u_i⟩ + ‖m - u_i‖² - D² ≤ 0. The constant term is not above 0: the mean lies within the
    updates, no further from one of them than another is. So each has one root that is not below 0.
    """
    squared = float(direction @ direction)
    if squared == 0:
        return 0.0
    diameter = max(float(((updates - u) ** 2).sum(axis=1).max()) for u in updates)
    away = mean - updates
    half, rest = away @ direction, (away**2).sum(axis=1) - diameter
    roots = (-half + np.sqrt(np.maximum(0.0, half**2 - squared * rest))) / squared
    return float(max(0.0, roots.min()))
