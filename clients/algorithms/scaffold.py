"""SCAFFOLD, the client half: control variates correct the drift of local steps.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning, ICML 2020, algorithm 1 with option II. Each step uses the gradient + c − c_i; after K steps of rate
η from x to y_i,

    c_i⁺ = c_i − c + (x − y_i) / (K η),

and c_i⁺ − c_i is sent with the update. Control variates start from zero.

The server half, and the list of deviations, are in server/algorithms/scaffold.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shoal.clients.algorithms.algorithm import (
    AlgorithmResult,
    Arrays,
    ClientAlgorithm,
    LocalTraining,
    States,
)
from shoal.clients.training.objective import LocalObjective
from shoal.common.errors import MessageError
from shoal.common.messages.requests import TrainRequest
from shoal.common.weights import record_to_weights


class ScaffoldClient(ClientAlgorithm):
    """Keeps control variates "c0", "c1", … in the client's state, one for each trainable weight."""

    name: ClassVar[str] = "SCAFFOLD"
    stateful: ClassVar[bool] = True
    sends: ClassVar[str] = "the change of its control variates, computed from the same rows"

    def init_state(self, trainable: Arrays) -> dict[str, NDArray[Any]]:
        """Return control variates of zero."""
        return {f"c{k}": np.zeros_like(w) for k, w in enumerate(trainable)}

    def local_objective(self, request: TrainRequest, states: States) -> LocalObjective:
        """Return the linear term c − c_i, whose gradient corrects each step."""
        own = _own(states)
        return LocalObjective(linear=[c - c_i for c, c_i in zip(_server(request, own), own, strict=True)])

    def finish(self, training: LocalTraining, request: TrainRequest, states: States) -> AlgorithmResult:
        """Return c_i⁺ − c_i to send, and c_i⁺ to keep; with a step size of zero, both are unchanged."""
        own = _own(states)
        if training.learning_rate == 0:
            return AlgorithmResult(
                [np.zeros_like(c_i) for c_i in own], {f"c{k}": c for k, c in enumerate(own)}
            )
        changes = [
            -c + (x - y) / _per_client(training.steps * training.learning_rate, y)
            for c, x, y in zip(_server(request, own), training.start, training.trained, strict=True)
        ]
        changes = [change.astype(c_i.dtype) for change, c_i in zip(changes, own, strict=True)]
        new = {f"c{k}": c_i + change for k, (c_i, change) in enumerate(zip(own, changes, strict=True))}
        return AlgorithmResult(changes, new)


def _own(states: States) -> list[NDArray[Any]]:
    """Return a stack's control variates, leaving out personal weights."""
    count = sum(name.startswith("c") for name in states)
    return [states[f"c{k}"] for k in range(count)]


def _server(request: TrainRequest, own: Arrays) -> list[NDArray[Any]]:
    """Return the server's control variates.

    Raises:
        MessageError: the request has none, or their shapes differ.
    """
    found = [] if request.server_state is None else record_to_weights(request.server_state)
    if [c.shape for c in found] != [c_i.shape[1:] for c_i in own]:
        raise MessageError("the request does not hold a SCAFFOLD control variate for each trainable weight")
    return found


def _per_client(numbers: NDArray[np.floating[Any]], weights: NDArray[Any]) -> NDArray[Any]:
    """Return one number for each client, (clients,), shaped to broadcast against weights (clients, ...)."""
    return numbers.reshape(-1, *[1] * (weights.ndim - 1)).astype(weights.dtype)
