"""Training without a federation: the baselines that federated learning is compared with.

The budget equals the federation's: as many rounds of the same local epochs (or steps), the same learning
rates, and the best round by the same validation metric. The optimizer keeps its state throughout, as in
ordinary training.

There is no differential privacy, whatever `privacy.unit` says: the baseline is what a site can do on its own,
and only metrics of its test rows are sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime, Rows
from shoal.clients.training.local_settings import local_settings
from shoal.common import metrics
from shoal.common.messages.requests import AloneRequest
from shoal.common.seeds import generator


def train_alone(runtime: ClientRuntime, client: int, request: AloneRequest) -> tuple[list[NDArray[Any]], int]:
    """Train on one client's rows only.

    Args:
        runtime: data and model; client: the client's index.
        request: the initial weights, equal to the federation's, and a learning rate for each
            round.

    Returns:
        All weights of the model of the best round by validation (of the last one if that is undefined), and
        the number of optimisation steps done.
    """
    runtime.use_preprocessing(request.preprocessing)
    scenario, rows = runtime.scenario, runtime.rows(client)
    weights = runtime.weights(request)
    monitor = metrics.monitored(scenario.training, runtime.schema.task)
    best, best_score, done, train = weights, float("nan"), 0, rows["train"]
    for round_number, rate in enumerate(request.learning_rates, start=1):
        settings = local_settings(
            scenario,
            client,
            round_number=round_number,
            learning_rate=rate,
            class_weights=request.class_weights,
        )
        rng = generator(scenario.seed, "shuffle", dispatch=round_number, client=client)
        kept = replace(settings, keep_optimizer=round_number > 1)
        weights, _, steps = runtime.trainer.train(weights, train.x, train.y, kept, rng)
        done += steps
        score = _validate(runtime, rows["validation"], weights, monitor)
        # If the score is NaN (no validation rows, or a single class), the last round is kept.
        if score != score or best_score != best_score or metrics.is_better(monitor, score, best_score):
            best, best_score = weights, score
    return best, done


def _validate(runtime: ClientRuntime, rows: Rows, weights: list[NDArray[Any]], monitor: str) -> float:
    if not len(rows.y):
        return float("nan")
    predicted, loss = runtime.trainer.evaluate(weights, rows.x, rows.y)
    return metrics.measure(runtime.schema.task, rows.y, predicted, [monitor], loss)[monitor]
