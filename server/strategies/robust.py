"""Shared by the robust strategies: single updates as rows of one matrix, and capped weights.

Memory: all updates of a round at once, clients x numbers x 4 bytes (100 clients with a million weights: 400
MB), in addition to the replies themselves; they are processed in blocks of columns. There are no random
draws, and rows are ordered by node id, so the same replies give bit-identical results.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from shoal.common.messages.names import EXAMPLES, METRICS_RECORD
from shoal.common.vectors import flatten, unflatten
from shoal.common.weights import record_to_weights, weights_to_record

Matrix = NDArray[np.float32]  # (clients, numbers)
Vector = NDArray[np.float64]  # (clients,)

_BLOCK = 1 << 20  # numbers processed at a time, so that they fit into the processor's cache


class RobustStrategy(FedAvg):
    """FedAvg with another rule to combine single updates, which a subclass defines."""

    def __init__(self, **kwargs: Any) -> None:
        """Accept Flower's own arguments."""
        super().__init__(**kwargs)
        self._sent: list[NDArray[Any]] = []

    @abstractmethod
    def combine(self, updates: Matrix, examples: Vector, nodes: Sequence[int]) -> NDArray[Any] | None:
        """Return the change of the model, (numbers,), or `None` for no change.

        Args:
            updates: each client's change of the server's weights, (clients, numbers); may be overwritten.
            examples: as reported by the clients, (clients,), none negative.
            nodes: the clients' node ids, ascending.
        """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure as FedAvg does, and keep the weights that updates are relative to."""
        self._sent = record_to_weights(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the updates by the rule; metrics are averaged as FedAvg does."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        start = flatten(self._sent)
        updates = np.empty((len(valid), len(start)), np.float32)
        for row, content in zip(updates, contents, strict=True):
            weights = record_to_weights(content.array_records[self.arrayrecord_key])
            np.subtract(flatten(weights), start, out=row, casting="same_kind")
        examples = np.array([_number(c.metric_records[METRICS_RECORD][EXAMPLES]) for c in contents])
        step = self.combine(updates, examples, [message.metadata.src_node_id for message in valid])
        moved = start if step is None else start + step
        return weights_to_record(unflatten(moved, self._sent)), self.train_metrics_aggr_fn(
            contents, self.weighted_by_key
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: rounds are independent."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept the output of `state_dict`."""


def norms(updates: Matrix, center: NDArray[Any] | None = None) -> Vector:
    """Return the L2 norm of each row of (clients, numbers), or its distance to `center` (numbers,)."""
    squares = np.zeros(len(updates))
    for part in blocks(updates):
        block = updates[:, part] if center is None else updates[:, part] - center[part]
        # in double precision: the squares of a large update overflow float32
        squares += np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return np.sqrt(squares)


def mean(updates: Matrix, weights: Vector) -> NDArray[np.float64]:
    """Return the sum of the rows of (clients, numbers), each times its weight (clients,), as (numbers,)."""
    found = np.empty(updates.shape[1])
    for part in blocks(updates):
        found[part] = weights @ updates[:, part].astype(np.float64)
    return found


def blocks(updates: Matrix) -> Iterator[slice]:
    """Yield slices of columns, so that a copy of one block is small compared with all updates."""
    width = max(1, _BLOCK // len(updates))
    for start in range(0, updates.shape[1], width):
        yield slice(start, start + width)


def capped(examples: Vector, cap: float) -> Vector:
    """Return weights (clients,) that add up to 1: proportional to examples, capped at `cap` times the median.

    The number of rows is the client's own claim. Without a cap, a malicious client that claims a billion
    rows has all the weight, and every weighted rule fails. If no client has examples, all count equally.
    """
    limited = np.minimum(examples, cap * np.median(examples))
    total = limited.sum()
    return limited / total if total > 0 else np.full(len(examples), 1 / len(examples))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
