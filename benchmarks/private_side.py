"""One measurement of `benchmarks/private.py`: a training with and without its protection, in turns.

As a program it takes a JSON object of the arguments of `record` or `clip` and prints the seconds as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from benchmarks.children import answer
from benchmarks.tasks import SEED, TASKS

_ROUND: Final = 1


def record(task: str, clients: int, batch: int, turns: int) -> dict[str, list[float]]:
    """Measure DP-SGD beside plain training: one epoch over the rows of some clients, as of one.

    Args:
        task: name; clients: whose rows are taken; batch: rows in a step; turns: repetitions.
    """
    import keras

    from benchmarks.models import compiled
    from shoal.clients.training.local_settings import LocalSettings
    from shoal.clients.training.private_sgd import PrivateTrainer
    from shoal.clients.training.trainer import Trainer
    from shoal.common.config import PrivacyConfig, TrainingConfig
    from shoal.common.privacy.noise import SeededRandomness
    from shoal.common.privacy.record import record_plan
    from shoal.common.seeds import generator

    arrays = TASKS[task].arrays(clients)
    rate = TASKS[task].learning_rate
    plain = Trainer(compiled(task, keras, rate))
    # a model of its own: the two would share nothing but their weights anyway
    private = PrivateTrainer(Trainer(compiled(task, keras, rate)), 1.0, 256)
    settings = LocalSettings(learning_rate=rate, batch_size=batch)
    privacy = PrivacyConfig(unit="record", noise_multiplier=1.0)
    plan = record_plan(privacy, TrainingConfig(rounds=1, batch_size=batch), len(arrays.y))
    rng = generator(SEED, "shuffle")
    noise, batches = (SeededRandomness(generator(SEED, purpose)) for purpose in ("gradient-noise", "batches"))

    def with_privacy() -> None:
        private.train(arrays.weights, arrays.x, arrays.y, settings, plan, noise, batches)

    return _in_turns(
        lambda: plain.train(arrays.weights, arrays.x, arrays.y, settings, rng), with_privacy, turns
    )


def clip(clients: int, turns: int) -> dict[str, list[float]]:
    """Measure a round of a worker that trains the MLP's clients in stacks and sums them, clipped and not."""
    from shoal.clients.cohort import train_cohort
    from shoal.clients.preprocessing.statistics import local_statistics
    from shoal.clients.runtime import ClientRuntime
    from shoal.common.config import UpdateConfig
    from shoal.common.messages.requests import TrainRequest
    from shoal.common.weights import weights_to_record
    from shoal.server.preprocessing.fit import fit

    task = TASKS["mlp"]
    population, scenario = task.population(clients), task.scenario(1, execution_mode="stacked")
    clipped = scenario.model_copy(update={"update": UpdateConfig(clip_norm=0.1)})
    runtimes = [ClientRuntime(given, population) for given in (scenario, clipped)]
    told = [
        local_statistics(runtimes[0].raw(c)["train"], population.schema, scenario.preprocessing)
        for c in range(clients)
    ]
    spec = fit(told, population.schema, scenario.preprocessing)
    runtimes[0].use_preprocessing(spec.to_json())
    request = TrainRequest(
        weights=weights_to_record(runtimes[0].trainer.model.get_weights()),
        preprocessing=spec.to_json(),
        round_number=_ROUND,
        learning_rate=task.learning_rate,
        execution_mode="stacked",
        reduce=True,
    )

    def round_of(runtime: ClientRuntime) -> Callable[[], None]:
        def work() -> None:
            parts = train_cohort(runtime, request, range(clients))
            if any(part.error is not None for part in parts):
                raise RuntimeError(f"clients failed: {parts}")

        return work

    return _in_turns(round_of(runtimes[0]), round_of(runtimes[1]), turns)


def _in_turns(
    without: Callable[[], object], given: Callable[[], object], turns: int
) -> dict[str, list[float]]:
    """Return the seconds of both, one after the other, so that they meet the same noise."""
    for work in (without, given):  # traces, then warms up
        work()
        work()
    found: dict[str, list[float]] = {"without": [_seconds(without)], "given": []}
    for _ in range(turns):
        found["given"].append(_seconds(given))
        found["without"].append(_seconds(without))
    return found


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure what the arguments name."""
    given = dict(arguments)
    kind = {"record": record, "clip": clip}[given.pop("kind")]
    return dict(kind(**given))


def ratio(found: Mapping[str, list[float]]) -> float:
    """Return the median of each turn's seconds over the mean of those without before and after it."""
    around = np.add(found["without"][:-1], found["without"][1:]) / 2
    return float(np.median(np.divide(found["given"], around)))


if __name__ == "__main__":
    answer(main)
