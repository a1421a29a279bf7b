"""Optimizers over stacked weights: each array has a leading client axis, and all clients step at once.

The updates are those of Keras 3's optimizers of the same name, which act on each number separately, so
a stack of clients is updated as one array. `tests/unit/test_stacked.py` compares them with Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

Tensors = list[tf.Tensor]
# (weights, gradients, slots, learning rate, step starting at 1) → (new weights, new slots)
Step = Callable[[Tensors, Tensors, Tensors, tf.Tensor, tf.Tensor], tuple[Tensors, Tensors]]


@dataclass(frozen=True, slots=True)
class StackedOptimizer:
    """An optimizer as a pure function.

    Attributes:
        slots: state arrays per weight, initially zero, each shaped like the weight.
        step: computes new weights and slots; slots are ordered slot by slot, then weight by weight.
    """

    slots: int
    step: Step


def stacked_optimizer(optimizer: keras.optimizers.Optimizer) -> StackedOptimizer | None:
    """Return the stacked form of a Keras optimizer; `None` if there is none."""
    clipped = optimizer.clipnorm, optimizer.clipvalue, optimizer.global_clipnorm
    averaged = optimizer.use_ema, optimizer.loss_scale_factor, optimizer.gradient_accumulation_steps
    if any(clipped) or any(averaged):
        return None
    if type(optimizer) is keras.optimizers.SGD and not optimizer.weight_decay:
        return _sgd(optimizer.momentum, optimizer.nesterov)
    adam = type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW)
    if adam and not optimizer.amsgrad and (optimizer.weight_decay is None or _decays_all(optimizer)):
        return _adam(optimizer)
    return None


def _decays_all(optimizer: keras.optimizers.Optimizer) -> bool:
    return not getattr(optimizer, "_exclude_from_weight_decay_names", None)


def _sgd(momentum: float, nesterov: bool) -> StackedOptimizer:
    """Polyak's momentum, or Nesterov's (Sutskever et al., ICML 2013)."""

    def step(
        weights: Tensors, gradients: Tensors, slots: Tensors, rate: tf.Tensor, count: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        if not momentum:
            return [w - rate * g for w, g in zip(weights, gradients, strict=True)], slots
        moved = [momentum * m - rate * g for m, g in zip(slots, gradients, strict=True)]
        if nesterov:
            ahead = zip(weights, moved, gradients, strict=True)
            return [w + momentum * m - rate * g for w, m, g in ahead], moved
        return [w + m for w, m in zip(weights, moved, strict=True)], moved

    return StackedOptimizer(1 if momentum else 0, step)


def _adam(optimizer: keras.optimizers.Optimizer) -> StackedOptimizer:
    """Adam (Kingma, Ba: ICLR 2015) in the form of Keras; AdamW (Loshchilov, Hutter: ICLR 2019) with decay."""
    beta_1, beta_2, epsilon = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
    decay = optimizer.weight_decay or 0.0

    def step(
        weights: Tensors, gradients: Tensors, slots: Tensors, rate: tf.Tensor, count: tf.Tensor
    ) -> tuple[Tensors, Tensors]:
        first, second = _halves(slots)
        count = tf.cast(count, rate.dtype)
        scaled = rate * tf.sqrt(1 - tf.pow(beta_2, count)) / (1 - tf.pow(beta_1, count))
        first = [m + (g - m) * (1 - beta_1) for m, g in zip(first, gradients, strict=True)]
        second = [v + (g * g - v) * (1 - beta_2) for v, g in zip(second, gradients, strict=True)]
        kept = [w - rate * decay * w if decay else w for w in weights]
        moments = zip(kept, first, second, strict=True)
        return [w - scaled * m / (tf.sqrt(v) + epsilon) for w, m, v in moments], [*first, *second]

    return StackedOptimizer(2, step)


def _halves(slots: Sequence[tf.Tensor]) -> tuple[Tensors, Tensors]:
    middle = len(slots) // 2
    return list(slots[:middle]), list(slots[middle:])
