"""Attacks in which a malicious client sends a forged update, without colluding."""

from __future__ import annotations

import numpy as np

from shoal.common.origin import Origin
from shoal.simulations.attacks.attack import Attack, AttackContext, Matrix, Vector


class SignFlip(Attack):
    """Sends the negated update.

    Source: Li, Xu, Chen, Giannakis, Ling: RSA: Byzantine-Robust Stochastic Aggregation Methods, AAAI 2019
    (sign-flipping attack).

    Deviation: the update is negated, not the whole model.

    Args:
        factor: length of the sent update, as a multiple of the honest one.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self._factor = factor

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return - factor · update."""
        return np.asarray(-self._factor * updates[0])


class Scaling(Attack):
    """Sends its update scaled up, so that the mean of the round becomes roughly its own model.

    Source: Bagdasaryan, Veit, Hua, Estrin, Shmatikov: How To Backdoor Federated Learning, AISTATS 2020
    ("model replacement"), with a server's learning rate of 1.

    Deviation: the replacement is the client's honest model, which fits only its own rows; attack "backdoor"
    uses a backdoored one.

    Args:
        factor: `None` means the number of clients per round, the paper's n / η.
    """

    def __init__(self, factor: float | None = None) -> None:
        self._factor = factor

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return factor · update."""
        return np.asarray((context.clients if self._factor is None else self._factor) * updates[0])


class Gaussian(Attack):
    """Sends noise instead of an update.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant
    Gradient Descent, NeurIPS 2017 (Gaussian Byzantine workers).

    Deviation: the noise is around the server's weights, and its size is an argument.

    Args:
        stddev: of each number.
    """

    def __init__(self, stddev: float = 1.0) -> None:
        self._stddev = stddev

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return stddev · N(0, 1), from the client's own generator."""
        return np.asarray(self._stddev * origin.rng("attack").standard_normal(updates.shape[1]))


class FreeRider(Attack):
    """Contributes nothing: sends the server's weights plus a little noise, weighted by the rows it claims.

    Source: Fraboni, Vidal, Lorenzi: Free-rider Attacks on Model Aggregation in Federated Learning, AISTATS
    2021 (disguised free-riding).

    Deviations: the size of the noise is an argument instead of fitted to the last update. The loss that it
    reports is that of real training: in the simulation it trains and discards the result.

    Args:
        stddev: of each number in the first round, the paper's φ.
        decay: the paper's γ: in round t it is stddev · t^-decay.
    """

    def __init__(self, stddev: float = 1e-3, decay: float = 1.0) -> None:
        self._stddev = stddev
        self._decay = decay

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return noise that decreases over rounds."""
        stddev = self._stddev * max(1, origin.dispatch) ** -self._decay
        return np.asarray(stddev * origin.rng("attack").standard_normal(updates.shape[1]))
