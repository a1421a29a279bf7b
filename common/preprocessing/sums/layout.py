"""The layout of a vector of integers as a sequence of blocks, with the noise of each block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shoal.common.privacy.noise import Randomness


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a vector.

    Attributes:
        name: unique in its layout; length: number of values.
        sensitivity: Δ_j, in the block's own unit; 0 if no unit of privacy can change it.
        share: s_j of the squared budget; those of a layout's blocks add up to 1, or are all 0.
    """

    name: str
    length: int
    sensitivity: float = 0.0
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """A vector as a sequence of blocks.

    Attributes:
        blocks: in order; unit: the integer that represents 1; multiplier: of the noise, 0 without.
    """

    blocks: tuple[Block, ...]
    unit: int
    multiplier: float = 0.0

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(block.length for block in self.blocks)

    def stddev(self, name: str) -> float:
        """Return the standard deviation of the noise of a block, in its own unit."""
        block = next(block for block in self.blocks if block.name == name)
        return self.multiplier * block.sensitivity / math.sqrt(block.share) if block.share else 0.0

    def joined(self, parts: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int64]:
        """Return the vector of these blocks, rounded towards zero; missing blocks are 0."""
        whole = [parts.get(block.name, np.zeros(block.length)) for block in self.blocks]
        # towards zero, so that no block exceeds its sensitivity
        return np.asarray(np.trunc(np.concatenate([np.empty(0), *whole]) * self.unit), np.int64)

    def cut(self, vector: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
        """Return the blocks of a vector, by name."""
        ends = np.cumsum([block.length for block in self.blocks])
        pieces = np.split(vector.astype(np.float64) / self.unit, ends[:-1])
        return {block.name: piece for block, piece in zip(self.blocks, pieces, strict=True)}

    def noised(self, vector: NDArray[np.int64], source: Randomness, share: float = 1.0) -> NDArray[np.int64]:
        """Return the vector with noise, rounded to whole numbers, which are 1 / unit.

        Args:
            vector: (size,); source: of the noise.
            share: fraction of the standard deviation, if the noise of several clients adds up.
        """
        deviations = np.repeat(
            [self.stddev(block.name) for block in self.blocks], [block.length for block in self.blocks]
        )
        drawn = source.normal(self.size) * deviations * share * self.unit
        return np.asarray(vector + np.rint(drawn), np.int64)
