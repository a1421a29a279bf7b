"""What one job of a scenario asks of a device: from its real model, rows and codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import RecordDict

from shoal.clients.preprocessing.statistics import local_statistics
from shoal.common.config import Scenario
from shoal.common.keras_loading import load_keras
from shoal.common.messages.names import (
    ARRAYS,
    EXAMPLES,
    METRICS_RECORD,
    SECONDS,
    STEPS,
    TRACES,
    TRAIN_LOSS,
)
from shoal.common.messages.replies import metric_record
from shoal.common.messages.requests import TrainRequest
from shoal.common.messages.schema import to_content
from shoal.common.schema import Population
from shoal.common.update.codecs import codec_of
from shoal.common.update.spec import WeightSpec
from shoal.common.weights import weights_to_record
from shoal.common.wire.codec import pack
from shoal.server.preprocessing.fit import fit
from shoal.simulations.devices.jobs import Work

if TYPE_CHECKING:
    from shoal.simulations.devices.costs import ModelCost

_MOST_ASKED = 100  # clients whose statistics fit the preprocessing, which sets the size of the model's input
_MOST_SIZES = 10_000  # clients whose numbers of rows are read; devices beyond repeat them


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of a job, and what it was computed from.

    Attributes:
        work: for `simulate`; cost: of the model.
    """

    work: Work
    cost: ModelCost

    def describe(self, seconds: float) -> str:
        """Return a sentence on a job; `seconds`: that the median device needs for it."""
        steps = float(np.median(self.work.steps))
        measured = f" (measured: {', '.join(self.cost.measured)})" if self.cost.measured else ""
        return (
            f"A job: {steps:.0f} steps of {self.work.flops_per_step / 1e6:,.3g} MFLOP{measured}, "
            f"{self.work.memory / 1e6:,.0f} MB of memory, {self.work.bytes_down / 1e3:,.4g} kB down, "
            f"{self.work.bytes_up / 1e3:,.4g} kB up: {seconds:,.3g} s at the median device."
        )


def workload(scenario: Scenario, population: Population, devices: int) -> Workload:
    """Return the work of each of a number of devices; device k has the rows of client k modulo their number.

    Bytes are those of a training request and its reply as they go over gRPC, the update encoded by the codec
    that `update.compress` names.

    Args:
        scenario: for model, training and codec; population: for rows; devices: their number.

    Raises:
        ShoalError: as in a run, where preprocessing or model do not fit the data.
    """
    load_keras()
    from shoal.common.models import build, compile_model  # TensorFlow takes seconds to import
    from shoal.simulations.devices.costs import model_cost

    schema, training = population.schema, scenario.training
    asked = np.unique(np.linspace(0, len(population) - 1, min(_MOST_ASKED, len(population))).astype(int))
    statistics = [
        local_statistics(population.shard(int(client)), schema, scenario.preprocessing) for client in asked
    ]
    preprocessing = fit(statistics, schema, scenario.preprocessing)
    model = build(scenario.model, preprocessing.input_spec, schema.num_classes, seed=scenario.seed)
    compile_model(model, training, schema.task)
    local = scenario.model.aggregate_statistics == "local"
    shared = WeightSpec.of(model, local_statistics=local).take_shared(model.get_weights())
    encoded = codec_of(scenario.update).encode(shared, lambda: np.random.default_rng(0))
    asked_for = TrainRequest(
        weights=weights_to_record(shared),
        preprocessing=preprocessing.to_json(),
        round_number=1,
        learning_rate=training.learning_rate,
        execution_mode="sequential",
        reduce=False,
    )
    numbers = dict.fromkeys((EXAMPLES, SECONDS, STEPS, TRACES, TRAIN_LOSS), 1.0)
    reply = RecordDict({ARRAYS: weights_to_record(encoded), METRICS_RECORD: metric_record(numbers)})
    cost = model_cost(model)
    sizes = np.array([population.rows(client) for client in range(min(len(population), _MOST_SIZES))], float)
    held_out = scenario.data.test_fraction + scenario.data.validation_fraction
    rows = np.maximum(1, np.round(sizes * (1 - held_out)))
    steps = (
        np.full(len(rows), float(training.local_steps))
        if training.local_steps
        else training.local_epochs * np.ceil(rows / training.batch_size)
    )
    work = Work(
        flops_per_step=cost.flops_per_step(training.batch_size),
        steps=steps[np.arange(devices) % len(steps)],
        bytes_down=float(pack(to_content(asked_for)).header.size),
        bytes_up=float(pack(reply).header.size),
        memory=cost.memory(training.batch_size, training.optimizer),
    )
    return Workload(work, cost)
