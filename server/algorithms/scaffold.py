"""SCAFFOLD, the server half: keeps the mean of the clients' control variates.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning, ICML 2020, algorithm 1: x ← x + η_g Δx, c ← c + |S|/N Δc, with means over the clients S of a round.
The client half is clients/algorithms/scaffold.py.

Deviations:
- Both means weigh clients by their examples, as FedAvg weighs updates, so that the fixed point is the optimum
  of the same objective, the mean loss over all rows; the paper has clients of one size.
- Statistics of batch norm have no control variate: they are averaged as in FedAvg.
- The step on x is that of Flower's FedAvgM, so that it can have momentum (server_momentum, 0 by default).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvgM
from numpy.typing import NDArray

from shoal.common.errors import TrainingError
from shoal.common.weights import weights_to_record
from shoal.server.algorithms.algorithm import ServerAlgorithm


class SCAFFOLD(FedAvgM):
    """The step on the model: x + server_learning_rate times the mean update."""


class ScaffoldServer(ServerAlgorithm):
    """Keeps c, one array for each trainable weight, initially zero."""

    name: ClassVar[str] = "SCAFFOLD"

    def __init__(self, trainable: Sequence[NDArray[Any]]) -> None:
        super().__init__(trainable)
        self._c = [np.zeros_like(w) for w in trainable]

    def request(self) -> ArrayRecord | None:
        """Return c."""
        return weights_to_record(self._c)

    def extra_like(self) -> Sequence[NDArray[Any]]:
        """Return c: clients send the changes of theirs."""
        return self._c

    def aggregate(self, extra: Sequence[NDArray[Any]], share: float) -> None:
        """Add |S|/N times the mean change of the clients' control variates.

        Raises:
            TrainingError: the clients sent none, or arrays of other shapes.
        """
        if [e.shape for e in extra] != [c.shape for c in self._c]:
            raise TrainingError("SCAFFOLD's clients did not send a control variate change for each weight")
        self._c = [(c + share * change).astype(c.dtype) for c, change in zip(self._c, extra, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return c."""
        return {"c": self._c}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore c."""
        self._c = list(state["c"])
