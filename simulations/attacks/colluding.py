"""Attacks of malicious clients that share their rows, and therefore know each other's honest updates.

All of them send the same update. They compute it from the honest updates of the first `colluders` malicious
clients, which they get by training on those clients' rows from the server's weights.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from shoal.common.origin import Origin
from shoal.simulations.attacks.attack import Attack, AttackContext, Matrix, Vector


class Colluding(Attack):
    """Base class of attacks that use the colluders' honest updates.

    Args:
        colluders: maximum number of malicious clients whose honest updates are computed; each one costs a
            local training in every process that has an attacker.
    """

    def __init__(self, colluders: int) -> None:
        self.colluders = colluders


class Alie(Colluding):
    """Moves each number away from the mean, by as much as still looks normal.

    Source: Baruch, Baruch, Goldberg: A Little Is Enough: Circumventing Defenses For Distributed Learning,
    NeurIPS 2019 (the attack that prevents convergence).

    Mean and standard deviation are those of the malicious clients' honest updates, as in the paper.

    Deviation: n and m are the expected numbers per round. With one malicious client the standard deviation
    is 0, and the update it sends is honest.

    Args:
        z: standard deviations to move; `None` means the paper's z_max, which is 0 if there are too few
            attackers.
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

    s = ⌊n / 2 + 1⌋ - m honest clients (at least 1) must be further out, so Φ(z) = (n - m - s) / (n - m).
    """
    honest = clients - malicious
    supporters = max(1, clients // 2 + 1 - malicious)
    share = (honest - supporters) / honest if honest > 0 else 0.0
    return max(0.0, NormalDist().inv_cdf(share)) if share > 0 else 0.0


class MinMax(Colluding):
    """Moves as far as possible while its distance to honest updates stays within their largest distance.

    Source: Shejwalkar, Houmansadr: Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
    Defenses for Federated Learning, NDSS 2021 (Min-Max, without knowledge of the rule or of others'
    updates), with the inverse standard deviation as direction.

    Deviation: the largest γ is computed exactly, from one quadratic inequality per client, not by bisection.
    With one malicious client there is no distance, and the update it sends is honest.

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

    γ²‖p‖² + 2γ⟨p, m - u_i⟩ + ‖m - u_i‖² - D² ≤ 0. The constant term is at most 0, because the mean is no
    further from an update than the furthest other update is. So each inequality has one root ≥ 0.
    """
    squared = float(direction @ direction)
    if squared == 0:
        return 0.0
    diameter = max(float(((updates - u) ** 2).sum(axis=1).max()) for u in updates)
    away = mean - updates
    half, rest = away @ direction, (away**2).sum(axis=1) - diameter
    roots = (-half + np.sqrt(np.maximum(0.0, half**2 - squared * rest))) / squared
    return float(max(0.0, roots.min()))
