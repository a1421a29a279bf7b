"""Single updates of small batches, as clients of the run would send them, including protection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from shoal.clients.cohort import train_cohort
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.messages.names import ARRAYS
from shoal.common.messages.requests import TrainRequest
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.schema import InputSpec, Shard
from shoal.common.update.codecs import codec_of
from shoal.common.weights import Weights, record_to_weights, weights_to_record
from shoal.simulations.leakage.populations import TargetBatches
from shoal.simulations.leakage.target import Target

_ROUND: Final = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Training rows of one client that make one update.

    Attributes:
        client: its index; rows: indices among its training rows, (batch,).
    """

    client: int
    rows: NDArray[np.intp]


def one_step(scenario: Scenario, batch_size: int) -> Scenario:
    """Return the scenario with one step of plain SGD per round, on a whole batch, with its protection.

    Several steps, or another optimizer, blur the gradient, so this update reveals the most.
    """
    changed = {"local_steps": 1, "batch_size": batch_size, "optimizer": "sgd", "optimizer_args": {}}
    training = scenario.training.model_copy(update=changed)
    return scenario.model_copy(update={"training": training})


class Updates:
    """Trains batches for one step from the run's initial weights.

    Attributes:
        runtime: has one client per batch, by index; model: at the initial weights.
    """

    def __init__(self, target: Target, batches: Sequence[Batch], batch_size: int) -> None:
        scenario = _with_noise_of_run(target, one_step(target.scenario, batch_size))
        shards = [_take(target, batch) for batch in batches]
        self.runtime = ClientRuntime(scenario, TargetBatches(target.population.schema, shards))
        self.runtime.use_preprocessing(target.released.spec_json)
        self.model: keras.Model = self.runtime.trainer.model
        self.start: list[Weights] = [w.copy() for w in self.model.get_weights()]
        self._request = TrainRequest(
            weights=weights_to_record(self.runtime.weight_spec.take_shared(self.start)),
            frozen_hash=self.runtime.weight_spec.frozen_hash(self.start),
            preprocessing=target.released.spec_json,
            round_number=_ROUND,
            learning_rate=scenario.training.learning_rate,
            execution_mode="sequential",
            reduce=False,
        )

    def gradient(self, batch: int) -> list[NDArray[Any]]:
        """Return an estimate of the gradient of each trainable weight from the update of a batch.

        Raises:
            ShoalError: the client refuses to send it.
        """
        reply = train_cohort(self.runtime, self._request, [batch])[0]
        if reply.content is None:
            raise reply.error or RuntimeError("a batch gave no update")
        spec, codec = self.runtime.weight_spec, codec_of(self.runtime.scenario.update)
        sent = record_to_weights(reply.content.array_records[ARRAYS])
        update = codec.decode(sent, spec.take_shared(self.start))
        rate = self.runtime.scenario.training.learning_rate
        kinds = [spec.roles[k] for k in spec.shared]
        return [-u / rate for u, kind in zip(update, kinds, strict=True) if kind == "trainable"]

    def at_start(self) -> keras.Model:
        """Return the model with the weights from which all updates start."""
        self.model.set_weights(self.start)
        return self.model


def _with_noise_of_run(target: Target, scenario: Scenario) -> Scenario:
    """With DP-SGD a client's noise depends on its rows: use the smallest among the attacked clients."""
    if not mechanism_of(scenario.privacy).per_row:
        return scenario
    runtime = ClientRuntime(target.scenario, target.population)
    sizes = [len(target.splits(client)["train"]) for client in target.clients]
    least = min(runtime.record_plan(rows).noise_multiplier for rows in sizes)
    privacy = scenario.privacy.model_copy(update={"noise_multiplier": least, "epsilon": None})
    return scenario.model_copy(update={"privacy": privacy})


def _take(target: Target, batch: Batch) -> Shard:
    train = target.splits(batch.client)["train"]
    return target.population.shard(batch.client).take(train[batch.rows])


def first_dense(model: keras.Model, spec: InputSpec) -> tuple[int, int] | None:
    """Return the indices of kernel and bias, among the trainable weights, of a Dense layer on the raw input.

    `None` if anything but a flattening comes before it.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer | keras.layers.Flatten):
            continue
        dense = isinstance(layer, keras.layers.Dense) and layer.use_bias and layer.trainable
        if not dense or layer.kernel.shape[0] != int(np.prod(spec.shape)):
            return None
        weights = [id(w) for w in model.trainable_weights]
        return weights.index(id(layer.kernel)), weights.index(id(layer.bias))
    return None


def first_embedding(model: keras.Model) -> int | None:
    """Return the index of the token embedding among the trainable weights, or `None` if there is none."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Embedding):
            return [id(w) for w in model.trainable_weights].index(id(layer.embeddings))
    return None
