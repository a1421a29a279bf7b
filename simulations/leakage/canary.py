"""Canaries: rows or clients designed to be memorised, included in training by fair coins.

Source: Steinke, Nasr, Jagielski: Privacy Auditing with One (1) Training Run, NeurIPS 2023, section 5.
Deviations: canaries are held-out rows with a wrong label (for a guarantee about clients: additional clients
with random labels); the score is how much more confident the model is of that label than the attacked run's
own model, which never saw a canary. That model does not depend on the coins, so the bound holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.schema import Shard

_MOST_ROWS: Final = 1_000
_SHARE: Final = 0.1  # canaries, as a fraction of the training rows
_CLIENTS: Final = 100
_ROWS_OF_A_CLIENT: Final = 32


@dataclass(frozen=True, slots=True)
class Canary:
    """Rows that are all in training, or none of them.

    Attributes:
        client: the client that trains on them; `None` for a separate client.
        shard: the rows, with their made-up labels.
    """

    client: int | None
    shard: Shard


def canary_rows(
    held_out: Mapping[int, Shard], training_rows: int, classes: int, count: int, rng: np.random.Generator
) -> list[Canary]:
    """Draw held-out rows and give each a wrong label.

    Args:
        held_out: client → rows not used in training; a canary stays at the client that has the row.
        training_rows: of all these clients; classes: at least 2.
        count: number of canaries; 0 means a tenth of the training rows, at most 1,000.
        rng: draws rows and labels.
    """
    wanted = count or min(_MOST_ROWS, int(_SHARE * training_rows))
    places = [(client, row) for client, shard in held_out.items() for row in range(shard.rows)]
    drawn = rng.permutation(len(places))[:wanted]
    found = []
    for client, row in (places[k] for k in np.sort(drawn)):
        one = held_out[client].take(np.array([row]))
        wrong = (one.labels + rng.integers(1, classes)) % classes
        found.append(Canary(client, Shard(one.columns, wrong.astype(one.labels.dtype))))
    return found


def canary_clients(held_out: Shard, classes: int, count: int, rng: np.random.Generator) -> list[Canary]:
    """Draw separate clients that have held-out rows with random labels.

    Args:
        held_out: rows not used in training; classes: at least 2.
        count: number of canaries; 0 means 100.
        rng: draws rows and labels.
    """
    rows = min(_ROWS_OF_A_CLIENT, held_out.rows)
    found = []
    for _ in range(count or _CLIENTS):
        drawn = held_out.take(rng.choice(held_out.rows, rows, replace=False))
        labels = rng.integers(classes, size=rows).astype(held_out.labels.dtype)
        found.append(Canary(None, Shard(drawn.columns, labels)))
    return found


def toss(canaries: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a fair coin for each canary, (canaries,)."""
    return np.asarray(rng.random(canaries) < 0.5)


def scores(with_canaries: Sequence[NDArray[Any]], without: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return how much more confident one model is of each canary's labels than another, (canaries,).

    Args:
        with_canaries, without: log-odds of the rows of each canary, by the model under audit and by one
            that saw no canary.
    """
    return np.array([float(np.mean(a - b)) for a, b in zip(with_canaries, without, strict=True)])
