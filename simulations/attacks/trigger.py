"""The trigger of a backdoor, on encoded rows of each modality."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from shoal.common.schema import InputSpec


def mark(x: NDArray[Any], spec: InputSpec, size: int, value: float) -> NDArray[Any]:
    """Return a copy of the rows with the trigger.

    image: a square of `size` × `size` pixels in the lower right corner, at full intensity (Gu,
    Dolan-Gavitt, Garg: BadNets, 2017). tokens: the first `size` words become the last word of the
    vocabulary, the rarest that was kept (after Kurita, Michel, Neubig: Weight Poisoning Attacks on
    Pre-trained Models, ACL 2020, which insert rare words). vector, sequence: the first `size` inputs, or
    steps, become `value`, in scaled units.

    Args:
        x: encoded rows (rows, ...); spec: describes them.
        size: at least 1; cut to the length of a row.
        value: for the inputs of a table or a sequence.
    """
    marked = x.copy()
    if spec.kind == "image":
        marked[:, -size:, -size:] = 1.0
    elif spec.kind == "tokens":
        marked[:, :size] = spec.vocabulary_size - 1
    else:
        marked[:, :size] = value
    return marked
