"""The client half of a federated algorithm: pure functions over a stack of clients and their states.

Everything has a leading client axis; a client that trains alone is a stack of one. So an algorithm is
written once, and works the same in every execution mode, on every backend and in a pilot.
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
    """The local training of a stack.

    Attributes:
        start: trainable weights before training, each (clients, ...) or, if all clients share them,
            (...).
        trained: trainable weights after training, (clients, ...).
        steps: optimisation steps, (clients,).
        learning_rate: of every step.
    """

    start: Arrays
    trained: Arrays
    steps: NDArray[np.int64]
    learning_rate: float


@dataclass(frozen=True, slots=True)
class AlgorithmResult:
    """The output of an algorithm after training.

    Attributes:
        extra: arrays to send with the update, each (clients, ...); empty for none.
        states: the clients' new states.
    """

    extra: Sequence[NDArray[Any]] = ()
    states: States = field(default_factory=dict)


class ClientAlgorithm:
    """Plain federated averaging, and the base class: no state, no added terms, nothing extra to send."""

    name: ClassVar[str] = "plain"
    stateful: ClassVar[bool] = False  # whether `init_state` returns anything
    sends: ClassVar[str] = ""  # what `finish` sends with the update, described for the operator of a site

    def init_state(self, trainable: Arrays) -> dict[str, NDArray[Any]]:
        """Return the initial state of one client; empty for an algorithm without state.

        Args:
            trainable: the model's trainable weights.
        """
        return {}

    def local_objective(self, request: TrainRequest, states: States) -> LocalObjective | None:
        """Return the terms to add to each client's own loss; `None` for none."""
        return None

    def finish(self, training: LocalTraining, request: TrainRequest, states: States) -> AlgorithmResult:
        """Return what to send with the updates, and the new states."""
        return AlgorithmResult()
