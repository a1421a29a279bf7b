"""Where the random numbers of a private training come from."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Draws(Protocol):
    """A stream of random numbers; each call goes on where the last one stopped."""

    def normal(self, size: int) -> NDArray[Any]:
        """Return `size` independent draws of N(0, 1), as float32 or float64."""
        ...

    def random(self, size: int) -> NDArray[np.float64]:
        """Return `size` independent draws, uniform in [0, 1)."""
        ...


class SeededDraws:
    """The draws of a simulation: whoever knows the seed can draw them again, and take the noise off."""

    def __init__(self, generator: np.random.Generator) -> None:
        """Draw from a generator of `common/seeds.py`."""
        self._generator = generator

    def normal(self, size: int) -> NDArray[np.float32]:
        """Return `size` draws of N(0, 1)."""
        return self._generator.standard_normal(size, dtype=np.float32)

    def random(self, size: int) -> NDArray[np.float64]:
        """Return `size` draws, uniform in [0, 1)."""
        return self._generator.random(size)
