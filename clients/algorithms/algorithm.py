"""The client half of a federated algorithm: pure functions over a stack of clients and their states.

A stack has a leading client axis everywhere; a client that trains alone is a stack of one. So an algorithm is
written once, and means the same in every execution mode, over every backend and in a pilot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shoal.clients.training.objective import LocalObjective
from shoal.common.messages.requests import TrainRequest

Arrays = Sequence[NDArray[Any]]
States = Mapping[str, NDArray[Any]]  # name → (clients, ...)


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """What local training of a stack did.

    Attributes:
        start: trainable weights that it started from, each (clients, ...) or, where all clients share them,
            (...).
        trained: those that it ended with, (clients, ...).
        steps: optimisation steps, (clients,).
        learning_rate: of every step.
    """

    start: Arrays
    trained: Arrays
    steps: NDArray[np.int64]
    learning_rate: float


@dataclass(frozen=True, slots=True)
class AlgorithmResult:
    """What an algorithm makes of a training.

    Attributes:
        extra: arrays that are sent beside the update, each (clients, ...); empty for none.
        states: the clients' new states.
    """

    extra: Sequence[NDArray[Any]] = ()
    states: States = field(default_factory=dict)


class ClientAlgorithm:
    """Plain federated averaging, and the base of the others: no state, no added terms, nothing extra."""

    name: ClassVar[str] = "plain"
    stateful: ClassVar[bool] = False  # whether `init_state` returns anything
    sends: ClassVar[str] = ""  # what `finish` sends beside the update, for the operator of a site

    def init_state(self, trainable: Arrays) -> dict[str, NDArray[Any]]:
        """Return the state of one client that has none yet; empty for an algorithm without.

        Args:
            trainable: the model's trainable weights.
        """
        return {}

    def local_objective(self, request: TrainRequest, states: States) -> LocalObjective | None:
        """Return what is added to each client's own loss; `None` for nothing."""
        return None

    def finish(self, training: LocalTraining, request: TrainRequest, states: States) -> AlgorithmResult:
        """Return what is sent beside the updates, and the new states."""
        return AlgorithmResult()
