"""The data of a stack: the batches of all its clients, as arrays of equal shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.clients.training.local_settings import LocalTask, batch_plan


class StackBatches(NamedTuple):  # a tuple, which a compiled function takes as an argument
    """The rows of all steps of a stack, as arrays or tensors.

    Attributes:
        x, y: inputs and labels of all clients, concatenated, (rows of all, ...).
        rows: indices into x and y, (steps, clients, batch size); 0 where a batch has fewer rows.
        weight: of each row in the batch's mean loss, shaped like `rows`. Keras divides by the batch size, so
            a row of a batch of n rows has weight batch size / n, times its class weight; 0 where there is no
            row.
        counts: rows of each batch, (steps, clients); 0 once a client is done.
        seeds: of the random layers, (clients, layers, 2).
        rate: learning rate of all clients.
    """

    x: Any
    y: Any
    rows: Any
    weight: Any
    counts: Any
    seeds: Any
    rate: Any


# Leading axes whose lengths differ from stack to stack.
FREE_AXES: Final = StackBatches(x=1, y=1, rows=3, weight=3, counts=2, seeds=1, rate=0)


def stack_batches(clients: Sequence[LocalTask], random_layers: int) -> StackBatches:
    """Plan all steps of a stack.

    Args:
        clients: at least one; the learning rate is the first one's.
        random_layers: number in the model; each has its own seed.
    """
    rows, weight, counts = _plan(clients)
    layers = range(random_layers)
    seeds = np.array([[(c.settings.dropout_seed, k) for k in layers] for c in clients], np.uint32)
    return StackBatches(
        x=np.concatenate([c.x for c in clients]),
        y=np.concatenate([c.y for c in clients]),
        rows=rows,
        weight=weight,
        counts=counts,
        seeds=seeds.reshape(len(clients), random_layers, 2),
        rate=np.float32(clients[0].settings.learning_rate),
    )


def _plan(
    clients: Sequence[LocalTask],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Return rows, weight and counts of `StackBatches`."""
    plans = [batch_plan(len(c.y), c.settings, c.rng) for c in clients]
    steps = max(len(bounds) for _, bounds in plans) - 1
    size = max(int(np.diff(bounds).max()) for _, bounds in plans)
    rows = np.zeros((steps, len(clients), size), np.int32)
    weight = np.zeros(rows.shape, np.float32)
    counts = np.zeros(rows.shape[:2], np.int32)
    first = np.cumsum([0, *(len(c.y) for c in clients)])
    alike: dict[int, list[int]] = {}  # clients with as many rows differ in row order only
    for k, client in enumerate(clients):
        alike.setdefault(len(client.y), []).append(k)
    for members in alike.values():
        sizes = np.diff(plans[members[0]][1])
        there = np.broadcast_to(np.arange(size) < sizes[:, None], (len(members), len(sizes), size))
        share = np.tile(np.repeat((size / sizes).astype(np.float32), sizes), (len(members), 1))
        for own, k in zip(share, members, strict=True):
            class_weights = clients[k].settings.class_weights
            if class_weights is not None:
                own *= np.asarray(class_weights, np.float32)[clients[k].y[plans[k][0]]]
        counts[: len(sizes), members] = sizes[:, None]
        orders = np.stack([plans[k][0] + first[k] for k in members])
        rows[: len(sizes), members] = _spread(orders, there)
        weight[: len(sizes), members] = _spread(share, there)
    return rows, weight, counts


def _spread(values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[Any]:
    """Place each client's values (clients, rows) where batches have rows; (steps, clients, batch size)."""
    spread = np.zeros(there.shape, values.dtype)
    spread[there] = values.reshape(-1)
    return spread.swapaxes(0, 1)
