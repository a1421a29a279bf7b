"""The terms that a federated algorithm adds to a client's own loss.

One form serves a family of algorithms: `mu/2 ‖w − anchor‖² + ⟨linear, w⟩` over the trainable weights w.

- FedProx (Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks,
  MLSys 2020, eq. 2): `mu`, with the start weights as the anchor.
- SCAFFOLD (Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for
  Federated Learning, ICML 2020, eq. 3): each step uses the gradient + c − c_i, so `linear` is c − c_i.
- FedDyn (Acar, Zhao, Navarro, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic
  Regularization, ICLR 2021, eq. 1): `mu` is its α, and `linear` the negative of the client's gradient
  ∇L_k(θ_k^{t−1}) of the round before.
- Ditto (Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021,
  eq. 1): `mu` is its λ, `anchor` the global weights, while training starts from the personal ones.

`objective_term.py` adds it to the loss of a Keras model, `stacked_objective.py` to the gradients of a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LocalObjective:
    """The terms `mu/2 ‖w − anchor‖² + ⟨linear, w⟩` added to a client's own loss.

    Arrays are in the order of `keras.Model.trainable_variables`, which is that of `get_weights` without the
    non-trainable ones; each has the shape of its weight. In a stack of clients each array may have a leading
    client axis instead, so that code written with broadcasting works for one client and for a stack.

    Non-trainable weights, such as the moving averages of batch norm, have no gradient and no term.

    The terms are part of the gradient that the optimizer receives. Under plain SGD a step is therefore
    −η (∇F + mu (w − anchor) + linear), which is what the papers analyse. Momentum accumulates the terms, Adam
    scales them together with the client's own gradient, clipping by norm includes them; the decoupled weight
    decay of AdamW does not.

    The reported training loss is the client's own plus the quadratic term. The linear term is left out: an
    algorithm uses its gradient only, its value has no natural zero, and a sum of both would say little about
    how well the model fits the rows.

    Attributes:
        mu: weight of the quadratic term, finite and at least 0; in a stack also (clients,). If it is 0 for
            all clients, there is no such term, and `anchor` is not used.
        anchor: centre of the quadratic term; `None` for the weights that training starts from.
        linear: gradient of the linear term; `None` for no such term. Zeros keep the term, so that a client
            without a correction yet uses the same graph as the others.

    Raises:
        ValueError: if mu is negative or not finite.
    """

    mu: float | NDArray[np.floating[Any]] = 0.0
    anchor: Arrays | None = None
    linear: Arrays | None = None

    def __post_init__(self) -> None:
        mu = np.asarray(self.mu)
        if not (np.isfinite(mu).all() and (mu >= 0).all()):
            raise ValueError(f"mu must be finite and at least 0, got {self.mu}")

    @property
    def quadratic(self) -> bool:
        """Whether there is a quadratic term, for at least one client of a stack."""
        return bool(np.any(self.mu))


def shaped(
    name: str, arrays: Arrays, like: Sequence[tuple[int, ...]], clients: int | None = None
) -> list[Any]:
    """Return arrays as a list if they have the shapes of a model's weights.

    Args:
        name: of the argument, for error texts.
        arrays: to check.
        like: the shapes of the weights.
        clients: number of clients, if each array may have a leading client axis; `None` if none may.

    Raises:
        ValueError: if the number of arrays differs from that of the weights, or one has another shape.
    """
    found = [np.asarray(array) for array in arrays]
    if len(found) != len(like):
        raise ValueError(f"{name} has {len(found)} arrays; the model has {len(like)} such weights")
    for k, (array, shape) in enumerate(zip(found, like, strict=True)):
        if array.shape != shape and (clients is None or array.shape != (clients, *shape)):
            expected = f"{shape}" if clients is None else f"{shape}, or {(clients, *shape)} per client"
            raise ValueError(f"{name}[{k}] has shape {array.shape}; expected {expected}")
    return found
