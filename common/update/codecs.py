"""Encodings of an update: applied at the client, undone where the update enters a sum.

A codec turns the arrays of one client's update into the arrays to send, and back. It is chosen by
`update.compress`; a new one is a class and a row in `CODECS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.common.config.sections import UpdateConfig

Arrays = Sequence[NDArray[Any]]
_LEVELS: Final = 127


class Codec(Protocol):
    """Encodes and decodes updates; stateless.

    Attributes:
        exact: whether decoding restores the update bit by bit.
    """

    exact: ClassVar[bool]

    def encode(self, update: Arrays, rng: Callable[[], np.random.Generator]) -> list[NDArray[Any]]:
        """Return the arrays to send.

        Args:
            update: finite floating-point arrays, not modified.
            rng: makes the client's generator, for randomised codecs.
        """
        ...

    def decode(self, encoded: Arrays, like: Arrays) -> list[NDArray[Any]]:
        """Return the update in the types of `like`, the weights that it belongs to."""
        ...

    def fits(self, encoded: Arrays, like: Arrays) -> bool:
        """Return whether arrays could be an encoded update of such weights, by number, shapes and types."""
        ...


class FullPrecision:
    """Sends the update unchanged."""

    exact: ClassVar[bool] = True

    def encode(self, update: Arrays, rng: Callable[[], np.random.Generator]) -> list[NDArray[Any]]:
        """Return the update."""
        return list(update)

    def decode(self, encoded: Arrays, like: Arrays) -> list[NDArray[Any]]:
        """Return the update."""
        return list(encoded)

    def fits(self, encoded: Arrays, like: Arrays) -> bool:
        """Return whether shapes and types are those of the weights."""
        return _shapes(encoded) == _shapes(like) and [a.dtype for a in encoded] == [w.dtype for w in like]


class Float16:
    """Rounds to 16 bits: a relative error of at most 2^-11 for magnitudes of 6e-5 to 65,504 (IEEE 754).

    Values beyond the range become infinite, and the client refuses to send them.
    """

    exact: ClassVar[bool] = False

    def encode(self, update: Arrays, rng: Callable[[], np.random.Generator]) -> list[NDArray[Any]]:
        """Return each array in 16 bits."""
        with np.errstate(over="ignore"):
            return [u.astype(np.float16) for u in update]

    def decode(self, encoded: Arrays, like: Arrays) -> list[NDArray[Any]]:
        """Return each array in the type of its weight."""
        return [e.astype(w.dtype) for e, w in zip(encoded, like, strict=True)]

    def fits(self, encoded: Arrays, like: Arrays) -> bool:
        """Return whether shapes are those of the weights, in 16 bits."""
        return _shapes(encoded) == _shapes(like) and all(a.dtype == np.float16 for a in encoded)


class Int8:
    """Rounds each array stochastically to one of 255 levels between minus and plus its largest magnitude.

    It is unbiased: the expected value of the decoded update is the update. The levels are sent as one byte
    each, followed by the step size of each array.

    Source: Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD, NeurIPS 2017, section 3.1, with the maximum norm
    and 127 levels.
    """

    exact: ClassVar[bool] = False

    def encode(self, update: Arrays, rng: Callable[[], np.random.Generator]) -> list[NDArray[Any]]:
        """Return the levels of each array, and the step sizes."""
        draws, levels, steps = rng(), [], np.zeros(len(update), np.float32)
        for k, u in enumerate(update):
            step = np.float32(np.abs(u).max(initial=0.0) / _LEVELS)
            drawn = draws.random(u.shape, dtype=np.float32)
            if step > 0:
                steps[k] = step
                # u / step is at most 127 up to rounding; a draw near 1 may exceed it.
                levels.append(np.clip(np.floor(u / step + drawn), -_LEVELS, _LEVELS).astype(np.int8))
            else:
                levels.append(np.zeros(u.shape, np.int8))
        return [*levels, steps]

    def decode(self, encoded: Arrays, like: Arrays) -> list[NDArray[Any]]:
        """Return levels times step sizes."""
        *levels, steps = encoded
        return [(level * step).astype(w.dtype) for level, step, w in zip(levels, steps, like, strict=True)]

    def fits(self, encoded: Arrays, like: Arrays) -> bool:
        """Return whether there are levels for each weight, and a step size for each array."""
        if len(encoded) != len(like) + 1:
            return False
        *levels, steps = encoded
        whole = _shapes(levels) == _shapes(like) and all(a.dtype == np.int8 for a in levels)
        return whole and steps.dtype == np.float32 and steps.shape == (len(like),)


class TopK:
    """Sends the values of largest magnitude, with their positions, and leaves out the others.

    Of an update of n values, over all arrays together, k = ⌈share · n⌉ are sent: positions as uint32,
    ascending, then values. Of values of equal magnitude, the first ones are sent. It is a contraction:
    ‖u − decoded‖² ≤ (1 − k/n) ‖u‖², and biased, so it should be used with error feedback.

    Source: Stich, Cordonnier, Jaggi: Sparsified SGD with Memory, NeurIPS 2018, definition 2.1 and example
    2.2.
    """

    exact: ClassVar[bool] = False

    def __init__(self, share: float) -> None:
        """Set the share of values to send, in (0, 1]."""
        self._share = share

    def encode(self, update: Arrays, rng: Callable[[], np.random.Generator]) -> list[NDArray[Any]]:
        """Return positions and values."""
        flat = flattened(update)
        positions = np.flatnonzero(self.chosen(flat[None])[0])
        return [positions.astype(np.uint32), flat[positions]]

    def decode(self, encoded: Arrays, like: Arrays) -> list[NDArray[Any]]:
        """Return the values at their positions, and zeros elsewhere."""
        positions, values = encoded
        flat = np.zeros(sum(w.size for w in like), values.dtype)
        flat[positions] = values
        return unflattened(flat, like)

    def fits(self, encoded: Arrays, like: Arrays) -> bool:
        """Return whether there are k ascending positions within the weights, and k values."""
        if len(encoded) != 2 or not like:
            return False
        positions, values = encoded
        size = sum(w.size for w in like)
        count = (self._count(size),)
        if positions.shape != count or values.shape != count or positions.dtype != np.uint32:
            return False
        ascending = bool((np.diff(positions.astype(np.int64)) > 0).all()) and int(positions[-1]) < size
        return ascending and values.dtype == np.result_type(*like)

    def chosen(self, updates: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values of flat updates are sent, both (clients, n): k of each client."""
        sizes = np.abs(updates)
        count = self._count(sizes.shape[1])
        # The k-th largest magnitude is well defined, unlike the positions that `argpartition` returns for
        # ties, which depend on the processor.
        limit = np.partition(sizes, -count, axis=1)[:, -count, None]
        chosen: NDArray[np.bool_] = sizes >= limit
        # Ties give a client more than k. Without an order, of values that are not numbers, it has fewer; it
        # must have k even so, because the caller only sees afterwards that the update is not finite.
        for k in np.flatnonzero(np.count_nonzero(chosen, axis=1) != count):
            above = np.flatnonzero(sizes[k] > limit[k])
            ties = np.flatnonzero(~(sizes[k] > limit[k]) & ~(sizes[k] < limit[k]))
            chosen[k] = False
            chosen[k, np.concatenate([above, ties])[:count]] = True
        return chosen

    def _count(self, size: int) -> int:
        return max(1, math.ceil(self._share * size))


# update.compress → codec
CODECS: Final[Mapping[str, Callable[[UpdateConfig], Codec]]] = {
    "none": lambda update: FullPrecision(),
    "float16": lambda update: Float16(),
    "int8": lambda update: Int8(),
    "topk": lambda update: TopK(update.top_share),
}


def codec_of(update: UpdateConfig) -> Codec:
    """Return the codec of a scenario's `[update]`."""
    return CODECS[update.compress](update)


def flattened(arrays: Arrays) -> NDArray[Any]:
    """Return the values of all arrays in one, in the type that holds them all."""
    return np.concatenate([a.reshape(-1) for a in arrays])


def unflattened(flat: NDArray[Any], like: Arrays) -> list[NDArray[Any]]:
    """Return flat values, (..., n), in arrays shaped and typed as others, each (..., shape)."""
    parts = np.split(flat, np.cumsum([w.size for w in like])[:-1], axis=-1)
    clients = flat.shape[:-1]
    return [part.reshape((*clients, *w.shape)).astype(w.dtype) for part, w in zip(parts, like, strict=True)]


def _shapes(arrays: Arrays) -> list[tuple[int, ...]]:
    return [a.shape for a in arrays]
