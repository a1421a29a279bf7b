"""Training without a federation: the baselines that federated learning is compared with.

The budget is the federation's: as many rounds of the same local epochs (or steps), the same learning
rates, and the best round by the same validation metric. The optimizer keeps its state all along, as
it would in one ordinary training.

It is without differential privacy, whatever `privacy.unit` says: it stands for what a site can do on its own,
where nothing leaves but metrics of its test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from flwr.app import ConfigRecord

from shoal.clients.runtime import ClientRuntime, Rows
from shoal.clients.training.local_settings import local_settings
from shoal.common import metrics
from shoal.common.records import Weights
from shoal.common.schema import Split
from shoal.common.seeds import generator


def train_alone(
    runtime: ClientRuntime,
    client: int,
    rows: Mapping[Split, Rows],
    weights: list[Weights],
    config: ConfigRecord,
) -> tuple[list[Weights], int]:
    """Train on one client's rows only.

    Args:
        runtime: gives the trainer and the scenario.
        client: the client's index.
        rows: its encoded splits.
        weights: initial weights, those that the federation started from.
        config: the server's; "learning-rates" holds one a round.

    Returns:
        The weights of the best round by validation (the last where that is not defined), and the
        number of optimisation steps done.
    """
    scenario = runtime.scenario
    monitor = metrics.monitored(scenario.training, runtime.schema.task)
    best, best_score, done = weights, float("nan"), 0
    rates = cast("list[float]", config["learning-rates"])
    for number, rate in enumerate(rates, start=1):
        asked = ConfigRecord({**config, "learning-rate": rate})
        settings = replace(local_settings(scenario, asked, number, client), keep_optimizer=number > 1)
        rng = generator(scenario.seed, "shuffle", round=number, client=client)
        train = rows["train"]
        weights, _, steps = runtime.trainer.train(weights, train.x, train.y, settings, rng)
        done += steps
        score = _validate(runtime, rows["validation"], weights, monitor)
        # A score that is not a number (no validation rows, one class) leaves the last round.
        if score != score or best_score != best_score or metrics.is_better(monitor, score, best_score):
            best, best_score = weights, score
    return best, done


def _validate(runtime: ClientRuntime, rows: Rows, weights: list[Weights], monitor: str) -> float:
    if not len(rows.y):
        return float("nan")
    predicted, loss = runtime.trainer.evaluate(weights, rows.x, rows.y)
    return metrics.measure(runtime.schema.task, rows.y, predicted, [monitor], loss)[monitor]
