"""The mark that a backdoor listens to, on encoded rows of each modality."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from shoal.common.schema import InputSpec


def mark(x: NDArray[Any], spec: InputSpec, size: int, value: float) -> NDArray[Any]:
    """Return a copy of rows that bear the trigger.

    image: a square of `size` pixels in the lower right corner, at full intensity (Gu, Dolan-Gavitt, Garg:
    BadNets, 2017). tokens: the first `size` words become the last of the vocabulary, the rarest one that was
    kept (after Kurita, Michel, Neubig: Weight Poisoning Attacks on Pre-trained Models, ACL 2020, which
    insert rare words). vector, sequence: the first `size` inputs, or steps, become `value`, in scaled
    units.

    Args:
        x: encoded rows (rows, ...); spec: what they are.
        size: at least 1; parts of a row beyond its end do not count.
        value: of an input of a table or a sequence.
    """
    marked = x.copy()
    if spec.kind == "image":
        marked[:, -size:, -size:] = 1.0
    elif spec.kind == "tokens":
        marked[:, :size] = spec.vocabulary_size - 1
    else:
        marked[:, :size] = value
    return marked
