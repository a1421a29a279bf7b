"""The data of a task as arrays, for sides that know nothing of shoal. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BATCH: Final = 10  # rows in an optimisation step, on every side


@dataclass(frozen=True, slots=True)
class Arrays:
    """What every side trains on.

    Attributes:
        x: encoded training rows of all clients; y: their labels.
        bounds: client k has the rows bounds[k]:bounds[k + 1].
        test_x, test_y: rows that no client has.
        weights: to start from, in the order of `keras.Model.get_weights`.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    bounds: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[Any]
    weights: list[NDArray[Any]]

    def write(self, path: str | Path) -> None:
        """Write an .npz file."""
        weights = {f"w{k}": w for k, w in enumerate(self.weights)}
        np.savez(path, **{name: getattr(self, name) for name in _NAMES}, **weights)

    @classmethod
    def read(cls, path: str | Path) -> Arrays:
        """Read what `write` wrote."""
        with np.load(path, allow_pickle=False) as found:
            weights = [found[f"w{k}"] for k in range(len(found.files) - len(_NAMES))]
            return cls(*(found[name] for name in _NAMES), weights)

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.bounds) - 1

    def client(self, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a client's inputs and labels."""
        rows = slice(self.bounds[number], self.bounds[number + 1])
        return self.x[rows], self.y[rows]

    def column(self, number: int) -> NDArray[Any]:
        """Return a client's labels as one column of floats, as losses of one output want them."""
        return self.client(number)[1][:, None].astype(np.float32)


_NAMES: Final = ("x", "y", "bounds", "test_x", "test_y")
