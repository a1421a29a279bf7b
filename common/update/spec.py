"""Which of a model's weights an update covers, and which stay with the client.

Every array of `keras.Model.get_weights` has a role:

trainable   changed by gradients in training
statistic   changed in training without a gradient: the moving averages of batch norm
frozen      never changed in training: layers with `trainable = False`, and integer weights

Updates cover trainable weights. They cover statistics if `model.aggregate_statistics = "mean"`; with "local",
statistics are personal: each client keeps its own in its state (Andreux, du Terrail, Beguier, Tramel: Siloed
Federated Learning for Multi-centric Histopathology Datasets, DCL 2020). Frozen weights are the same at all
clients and are identified by their hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Role = Literal["trainable", "statistic", "frozen"]
Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """The roles of a model's weights, in the order of `keras.Model.get_weights`.

    Attributes:
        roles: of each array; names: Keras' paths, for display.
        local_statistics: whether statistics are personal rather than shared.
    """

    roles: tuple[Role, ...]
    names: tuple[str, ...]
    local_statistics: bool = False

    @classmethod
    def of(cls, model: keras.Model, *, local_statistics: bool = False) -> WeightSpec:
        """Return the spec of a built model."""
        trainable = {id(v) for v in model.trainable_variables}
        # A layer keeps its trainable and non-trainable weights apart, whatever `trainable` says now.
        made_trainable = {id(v) for layer in model._flatten_layers() for v in layer._trainable_variables}
        live = {
            id(v)
            for layer in model._flatten_layers()
            if layer.trainable
            for v in layer._non_trainable_variables
        }

        def role(variable: keras.Variable) -> Role:
            if id(variable) in trainable:
                return "trainable"
            moves = id(variable) in live and id(variable) not in made_trainable
            floating = np.issubdtype(np.dtype(variable.dtype), np.floating)
            return "statistic" if moves and floating else "frozen"

        return cls(
            tuple(role(v) for v in model.weights),
            tuple(str(v.path) for v in model.weights),
            local_statistics,
        )

    @property
    def shared(self) -> list[int]:
        """Positions of the weights that an update covers."""
        kinds = ("trainable",) if self.local_statistics else ("trainable", "statistic")
        return [k for k, role in enumerate(self.roles) if role in kinds]

    @property
    def personal(self) -> list[int]:
        """Positions of the weights that each client keeps to itself."""
        return [k for k, role in enumerate(self.roles) if role == "statistic" and self.local_statistics]

    @property
    def frozen(self) -> list[int]:
        """Positions of the weights that training never changes."""
        return [k for k, role in enumerate(self.roles) if role == "frozen"]

    def take_shared(self, weights: Arrays) -> list[NDArray[Any]]:
        """Select the shared weights from all weights of a model."""
        return [weights[k] for k in self.shared]

    def with_shared(self, weights: Arrays, shared: Arrays) -> list[NDArray[Any]]:
        """Return all weights of a model with the shared ones replaced.

        Args:
            weights: of the whole model; shared: new values, in the order of `shared`.
        """
        return replaced(weights, self.shared, shared)

    def frozen_hash(self, weights: Arrays) -> bytes | None:
        """Return the SHA-256 of the frozen weights; `None` if there are none."""
        return content_hash([weights[k] for k in self.frozen]) if self.frozen else None


def replaced(weights: Arrays, positions: Sequence[int], new: Arrays) -> list[NDArray[Any]]:
    """Return weights with those at some positions replaced.

    Raises:
        ValueError: the numbers of new weights and positions differ.
    """
    found = list(weights)
    for position, value in zip(positions, new, strict=True):
        found[position] = value
    return found


def content_hash(arrays: Arrays) -> bytes:
    """Return the SHA-256 of arrays, over their types, shapes and values."""
    found = sha256()
    for array in arrays:
        numbers = np.ascontiguousarray(array)
        found.update(repr((numbers.dtype.str, numbers.shape)).encode())
        found.update(numbers.reshape(-1).view(np.uint8).data)
    return found.digest()
