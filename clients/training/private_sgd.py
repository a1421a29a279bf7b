"""DP-SGD: local training that hides the presence of any single row.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang: Deep Learning with Differential Privacy, CCS 2016,
algorithm 1. In each step every row is sampled independently with the same probability; the gradient of each
row's loss is scaled to an L2 norm of at most C; Gaussian noise of standard deviation z C is added to their
sum; and the optimizer gets the sum divided by the batch size.

Deviations:
- The sum is divided by the expected batch size, which the paper calls the lot size L: the actual size would
  reveal rows.
- Any Keras optimizer takes the step. It sees only the noised gradient, so the guarantee is the same.
- The gradients of regularizers and of the local objective (`objective.py`) are added after clipping and
  noise: they depend on the weights, and on the objective's arrays. These must therefore come from the server
  or from noised weights, never from the rows themselves.
- The norm for clipping covers all layers together.

No training loss is returned: it would reveal rows without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shoal.clients.training.local_settings import LocalSettings
from shoal.clients.training.objective import Arrays, LocalObjective
from shoal.clients.training.row_gradients import AnyRows, Batches, DenseRows, RowGradients
from shoal.clients.training.trainer import Trainer, seed_states
from shoal.common.errors import ModelError, NonFiniteError
from shoal.common.privacy.noise import Randomness
from shoal.common.privacy.record import RecordPlan
from shoal.common.profiling import span
from shoal.common.weights import all_finite

_NOISE_NUMBERS = 1 << 22  # noise values drawn at a time, 16 MB: limits the steps that are run in one block


class PrivateTrainer:
    """Trains the model of a `Trainer` with DP-SGD, one client after another."""

    def __init__(self, trainer: Trainer, clip_norm: float, microbatch: int) -> None:
        """Wrap a trainer, whose model is shared.

        Args:
            trainer: with the compiled model; clip_norm: largest L2 norm of a row's gradient.
            microbatch: rows whose gradients are in memory at once; does not affect the result. A chain of
                Dense layers never materialises row gradients (`clients/training/row_gradients.py`).
        """
        self._trainer = trainer
        self._model = trainer.model
        self._clip = clip_norm
        self._seeds = seed_states(self._model)
        self._rows: RowGradients = (
            DenseRows(self._model, clip_norm)
            if DenseRows.fits(self._model)
            else AnyRows(self._model, self._seeds, clip_norm, microbatch)
        )
        self._checked = False
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self.traces = 0

    @span("train")
    def train(
        self,
        weights: Arrays,
        x: NDArray[Any],
        y: NDArray[Any],
        settings: LocalSettings,
        plan: RecordPlan,
        noise: Randomness,
        batches: Randomness,
        objective: LocalObjective | None = None,
    ) -> tuple[list[NDArray[Any]], int]:
        """Train on a client's rows from the given weights.

        Args:
            weights: in the order of `keras.Model.get_weights`.
            x: encoded inputs (rows, ...); y: labels (rows,).
            settings: learning rate, batch size, class weights and dropout seed.
            plan: noise, sampling probability of a row, and steps.
            noise: draws the noise, anew for each step; batches: samples the rows of each batch.
            objective: terms added to the model's loss; `None` for none.

        Returns:
            The new weights and the number of steps.

        Raises:
            ModelError: the model's loss cannot be computed row by row.
            NonFiniteError: if a weight is not finite afterwards.
            ValueError: if an array of the objective does not have the shape of its weight.
        """
        self._check(x[:1])
        steps, rate = plan.steps_per_round, plan.sampling_probability
        order, bounds = poisson_batches(len(y), steps, rate, batches)
        self._trainer.prepare(weights, settings)
        size = sum(int(np.prod(v.shape)) for v in self._model.trainable_variables)
        expected = rate * len(y)
        scale = np.float32(plan.noise_multiplier * self._clip / expected)
        rows = [x, y]
        if settings.class_weights is not None:
            rows.append(np.asarray(settings.class_weights, np.float32)[y])
        block = max(1, _NOISE_NUMBERS // max(1, size))
        with self._trainer.objective_term.added(objective):
            for begin in range(0, steps, block):
                ends = bounds[begin : begin + block + 1]
                drawn = np.asarray(noise.normal((len(ends) - 1) * size), np.float32).reshape(-1, size)
                numbers = [np.float32(expected), np.int32(settings.dropout_seed), np.int32(ends[0])]
                arrays = [order[ends[0] : ends[-1]], ends - ends[0], drawn * scale, *numbers, *rows]
                self._call([tf.convert_to_tensor(array) for array in arrays])
        trained = self._model.get_weights()
        if not all_finite(trained):
            raise NonFiniteError(
                f"local training gave weights that are not finite after {steps} steps with learning rate "
                f"{settings.learning_rate:g}",
                hint="lower training.learning_rate, or add less noise (a larger privacy.epsilon)",
            )
        return trained, steps

    def _check(self, row: NDArray[Any]) -> None:
        """Refuse a model whose gradient is not a sum over rows, before any row is used."""
        if self._checked:
            return
        own = type(self._model)
        if own.train_step is not keras.Model.train_step or own.compute_loss is not keras.Model.compute_loss:
            raise ModelError(
                "DP-SGD needs the loss of each row, but the model has its own train_step or compute_loss",
                hint='leave them to Keras, or protect whole clients: privacy.unit = "client"',
            )
        for layer in self._model._flatten_layers():
            if isinstance(layer, keras.Layer) and layer.dtype_policy.name != "float32":
                raise ModelError(
                    f"{layer.name} computes in {layer.dtype_policy.name}: in 16 bits a row's gradient may "
                    "become infinite before it is clipped",
                    hint='set model.precision = "float32"',
                )
        if changed := self._changed_by(np.zeros_like(row)):
            raise ModelError(
                f"training changes {', '.join(changed)} other than by a gradient: moving averages "
                "such as those of batch norm mix rows, and are neither clipped nor noised",
                hint="use LayerNormalization or GroupNormalization, which treat each row separately",
            )
        self._checked = True

    def _changed_by(self, row: NDArray[Any]) -> list[str]:
        """Return the names of variables that a training step changes other than by their gradient."""
        others = self._model.non_trainable_variables
        state = [tf.convert_to_tensor(v.value) for v in others]
        weights = [tf.convert_to_tensor(v.value) for v in self._model.trainable_variables]
        _, after = self._model.stateless_call(weights, state, tf.convert_to_tensor(row), training=True)
        seeds = {id(v) for v in self._seeds}
        moved = [v for v, old, new in zip(others, state, after, strict=True) if new is not old]
        return [v.path for v in moved if id(v) not in seeds]

    def _call(self, tensors: list[tf.Tensor]) -> None:
        """Run a block of steps, traced once for blocks and clients of any size."""
        key = (len(tensors), *self._trainer.objective_term.parts)
        if key not in self._compiled:
            signature = [
                tf.TensorSpec([None, *t.shape[1:]] if t.shape.rank else [], t.dtype) for t in tensors
            ]
            noise = tensors[2].shape
            signature[2] = tf.TensorSpec([None, *noise[1:]], tf.float32)
            # AutoGraph would rewrite Keras too, as in clients/training/trainer.py.
            self._compiled[key] = tf.function(self._steps, input_signature=signature, autograph=False)
        self._compiled[key](*tensors)

    def _steps(
        self,
        order: tf.Tensor,
        bounds: tf.Tensor,
        noise: tf.Tensor,
        expected: tf.Tensor,
        seed: tf.Tensor,
        first: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        weight: tf.Tensor | None = None,
    ) -> None:
        """Run steps; `noise` (steps, numbers) is already divided by the expected batch size."""
        self.traces += 1
        variables = self._model.trainable_variables
        sizes = [int(np.prod(v.shape)) for v in variables]
        batches = Batches(x, y, weight, order, first, seed)

        def train_step(step: tf.Tensor) -> tuple[tf.Tensor]:
            sums = self._rows.clipped_sum(batches, bounds[step], bounds[step + 1])
            draws = tf.split(tf.gather(noise, step), sizes)
            gradients = [g / expected + tf.reshape(z, g.shape) for g, z in zip(sums, draws, strict=True)]
            more = self._of_regularizers()
            if more is not None:
                gradients = [g + m for g, m in zip(gradients, more, strict=True)]
            self._model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return (step + 1,)

        steps = tf.shape(bounds)[0] - 1
        tf.while_loop(lambda step: step < steps, train_step, [tf.constant(0)])

    def _of_regularizers(self) -> list[tf.Tensor] | None:
        """Return the gradient of the loss terms that do not depend on rows; `None` if there are none.

        They depend on the weights alone, which the noise already protects: clipped together with a row, they
        would only reduce the row's share of the norm.
        """
        variables = [v.value for v in self._model.trainable_variables]
        with tf.GradientTape() as tape:
            terms = self._model._get_regularization_losses()
            if not terms:
                return None
            loss = tf.add_n(terms)
        found: list[tf.Tensor] = tape.gradient(
            loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return found


def poisson_batches(
    rows: int, steps: int, probability: float, draws: Randomness
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sample batches that hold each row independently with the same probability.

    All (step, row) pairs form one sequence of coin tosses. The gaps between heads are drawn instead of the
    tosses: they are geometric, ⌊ln(1 - u) / ln(1 - p)⌋ tails for a uniform u (Devroye: Non-Uniform Random
    Variate Generation, 1986, X.2), so rows that are not sampled cost nothing.

    Args:
        rows: of the client; steps: number of batches.
        probability: of a row in a batch, in (0, 1]; draws: uniform random numbers.

    Returns:
        order: row indices of all batches, concatenated; ascending within one batch.
        bounds: (steps + 1,); batch i is order[bounds[i]:bounds[i + 1]], and may be empty.
    """
    total = rows * steps
    if probability >= 1:
        taken = np.arange(total)
    else:
        parts = [np.array([-1])]
        while parts[-1][-1] < total:
            count = int((total - parts[-1][-1]) * probability * 1.1) + 16
            tails = np.log1p(-draws.random(count)) // np.log1p(-probability)
            # a gap beyond the end is the same as the end, and cannot overflow
            parts.append(parts[-1][-1] + np.cumsum(np.minimum(tails, total).astype(np.int64) + 1))
        taken = np.concatenate(parts)[1:]
        taken = taken[taken < total]
    bounds = np.searchsorted(taken, np.arange(steps + 1) * rows).astype(np.int32)
    return (taken % rows).astype(np.int32), bounds
