"""Attacks of one malicious client that change what it sends."""

from __future__ import annotations

import numpy as np

from shoal.common.origin import Origin
from shoal.simulations.attacks.attack import Attack, AttackContext, Matrix, Vector


class SignFlip(Attack):
    """Sends its update turned round.

    Source: Li, Xu, Chen, Giannakis, Ling: RSA: Byzantine-Robust Stochastic Aggregation Methods, AAAI 2019
    (sign-flipping attack).

    Deviation: the update is turned round, not the whole model.

    Args:
        factor: length of what is sent, as a multiple of the update's.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self._factor = factor

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return - factor · update."""
        return np.asarray(-self._factor * updates[0])


class Scaling(Attack):
    """Sends its update many times over, so that the mean of the round becomes about its own model.

    Source: Bagdasaryan, Veit, Hua, Estrin, Shmatikov: How To Backdoor Federated Learning, AISTATS 2020
    ("model replacement"), with a server's learning rate of 1.

    Deviation: what replaces the model is the client's honest one, which fits its own rows only; kind
    backdoor has the backdoored one.

    Args:
        factor: `None` takes the number of clients in a round, the paper's n / η.
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
    """Takes the model and gives nothing: the server's weights with little noise, for all the rows it claims.

    Source: Fraboni, Vidal, Lorenzi: Free-rider Attacks on Model Aggregation in Federated Learning, AISTATS
    2021 (disguised free-riding).

    Deviations: the size of the noise is an argument instead of a fit to the last update. The loss that it
    tells is the one that its training would have had: in the simulation it does train, in vain.

    Args:
        stddev: of each number in the first round, the paper's φ.
        decay: the paper's γ: in round t it is stddev · t^-decay.
    """

    def __init__(self, stddev: float = 1e-3, decay: float = 1.0) -> None:
        self._stddev = stddev
        self._decay = decay

    def forge(self, updates: Matrix, context: AttackContext, origin: Origin) -> Vector:
        """Return noise that gets less over rounds."""
        stddev = self._stddev * max(1, origin.round) ** -self._decay
        return np.asarray(stddev * origin.rng("attack").standard_normal(updates.shape[1]))
