"""What the robust strategies share: single updates as rows of one matrix, and weights that are capped.

Memory: all updates of a round at once, clients x numbers x 4 bytes (100 clients of a million weights:
400 MB), beside the replies themselves; work on them goes by blocks of columns. Nothing is drawn, and the
order of rows is that of the replies, by ascending node id: so the same replies give the same bits.
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

_BLOCK = 1 << 20  # numbers that are worked on at a time: what a processor's cache holds


class RobustStrategy(FedAvg):
    """FedAvg with another rule for how single updates become one; a subclass gives the rule."""

    def __init__(self, **kwargs: Any) -> None:
        """Take Flower's own arguments."""
        super().__init__(**kwargs)
        self._sent: list[NDArray[Any]] = []

    @abstractmethod
    def combine(self, updates: Matrix, examples: Vector, nodes: Sequence[int]) -> NDArray[Any] | None:
        """Return how far the model moves, (numbers,), or `None` to leave it as it is.

        Args:
            updates: what each client adds to the server's weights, (clients, numbers); it may be written to.
            examples: that the clients say they have, (clients,), none negative.
            nodes: the clients' node ids, ascending.
        """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as FedAvg does, and remember the weights that updates are measured from."""
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
        """Return nothing: each round stands by itself."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""


def norms(updates: Matrix, center: NDArray[Any] | None = None) -> Vector:
    """Return the L2 norm of each row of (clients, numbers), or its distance to `center` (numbers,)."""
    squares = np.zeros(len(updates))
    for part in blocks(updates):
        block = updates[:, part] if center is None else updates[:, part] - center[part]
        # in double precision: the squares of a large update do not fit into float32
        squares += np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return np.sqrt(squares)


def mean(updates: Matrix, weights: Vector) -> NDArray[np.float64]:
    """Return the sum of the rows of (clients, numbers), each times its weight (clients,), as (numbers,)."""
    found = np.empty(updates.shape[1])
    for part in blocks(updates):
        found[part] = weights @ updates[:, part].astype(np.float64)
    return found


def blocks(updates: Matrix) -> Iterator[slice]:
    """Yield slices of columns, so that a copy of one block is small beside all updates."""
    width = max(1, _BLOCK // len(updates))
    for start in range(0, updates.shape[1], width):
        yield slice(start, start + width)


def capped(examples: Vector, cap: float) -> Vector:
    """Return weights (clients,) that add up to 1: by examples, none above `cap` times their median.

    Number of rows is what a client claims. Without a cap one malicious client that claims a billion has
    all the weight, and every weighted rule is lost. Where nobody has examples all count the same.
    """
    limited = np.minimum(examples, cap * np.median(examples))
    total = limited.sum()
    return limited / total if total > 0 else np.full(len(examples), 1 / len(examples))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
