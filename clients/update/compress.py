"""Makes an update smaller for the way to the server; what the server gets is what is left of it there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.clients.update.step import Updates
from shoal.common.origin import Origin


class Float16:
    """Rounds to 16 bits: a relative error of at most 2^-11, from 6e-5 to 65,504 in size (IEEE 754)."""

    def apply(self, updates: Updates, origins: Sequence[Origin]) -> Updates:
        """Round; numbers beyond the range become infinite, and their client is refused."""
        with np.errstate(over="ignore"):
            return [u.astype(np.float16).astype(u.dtype) for u in updates]

    def wire_bytes(self, numbers: int, arrays: int) -> int | None:
        """Two bytes a number."""
        return 2 * numbers


class Int8:
    """Rounds each array at random to one of 255 levels between minus and plus its largest number.

    Without bias: the expected value of what arrives is what was sent.

    Source: Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD, NeurIPS 2017, section 3.1, with the largest
    number as the norm and 127 levels.
    """

    def apply(self, updates: Updates, origins: Sequence[Origin]) -> Updates:
        """Round, with draws from each client's own generator."""
        for k, origin in enumerate(origins):
            rng = origin.rng("compression")
            for u in updates:
                scale = np.abs(u[k]).max(initial=0.0) / 127
                if scale > 0 and np.isfinite(scale):
                    u[k] = np.floor(u[k] / scale + rng.random(u.shape[1:], dtype=np.float32)) * scale
        return updates

    def wire_bytes(self, numbers: int, arrays: int) -> int | None:
        """One byte a number, and a float32 scale an array."""
        return numbers + 4 * arrays
