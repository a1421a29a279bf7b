"""Evaluates the server's weights on a client's rows; metrics of too few rows are withheld."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from shoal.clients.kernel import Use
from shoal.clients.local_round import personal_weights
from shoal.clients.result import CohortReply
from shoal.clients.runtime import ClientRuntime, Rows
from shoal.clients.state import StateBatch
from shoal.common import metrics
from shoal.common.messages.names import CLIENTS, EXAMPLES, METRICS_RECORD, SECONDS
from shoal.common.messages.replies import client_table, metric_record
from shoal.common.messages.requests import EvaluateRequest, ModelRequest, TestRequest
from shoal.common.seeds import generator
from shoal.common.update.spec import replaced

Arrays = list[NDArray[Any]]
Found = tuple[NDArray[Any], float]  # predictions (rows, outputs), mean loss


class ClientEvaluation:
    """Evaluates for any client of a process."""

    def __init__(self, runtime: ClientRuntime) -> None:
        self._runtime = runtime
        self._task = runtime.schema.task
        self._names = runtime.scenario.training.metrics or metrics.default_metrics(self._task)

    def validate(
        self, request: EvaluateRequest, clients: Sequence[int], states: StateBatch | None
    ) -> list[CohortReply]:
        """Evaluate weights on the validation rows of clients.

        Returns:
            A reply for each client; with `request.reduce`, one for all that could be evaluated.
        """
        self._runtime.spend(Use(f"evaluate {request.round_number}"))
        self._runtime.use_preprocessing(request.preprocessing)
        started = time.perf_counter()
        found: dict[int, dict[str, float]] = {}
        evaluated: list[tuple[int, Rows]] = []
        failed = []
        for client in clients:
            try:
                rows = self._runtime.rows(client)["validation"]
            except Exception as error:
                failed.append(CohortReply([client], None, error))
                continue
            if self._enough(rows):
                evaluated.append((client, rows))
            else:
                found[client] = {EXAMPLES: len(rows.y), **dict.fromkeys(self._names, math.nan)}
        for (client, rows), (predicted, loss) in zip(
            evaluated, self._predictions(request, evaluated, states), strict=True
        ):
            measured = metrics.measure(self._task, rows.y, predicted, self._names, loss)
            found[client] = {EXAMPLES: len(rows.y), **measured}
        seconds = (time.perf_counter() - started) / len(clients)
        numbers = {client: {**one, SECONDS: seconds} for client, one in sorted(found.items())}
        if numbers and request.reduce:
            return [CohortReply(list(numbers), _together(numbers)), *failed]
        alone = [CohortReply([client], _reply(one)) for client, one in numbers.items()]
        return sorted([*alone, *failed], key=lambda reply: reply.clients[0])

    def test(self, client: int, request: TestRequest, states: StateBatch | None) -> RecordDict:
        """Evaluate weights on a client's test rows, with bootstrap intervals."""
        self._runtime.spend(Use("test"))
        self._runtime.use_preprocessing(request.preprocessing)
        weights = self._weights_of(self._runtime.weights(request), client, states)
        return _reply(self.tested(client, self._runtime.rows(client)["test"], weights))

    def tested(self, client: int, rows: Rows, weights: Arrays) -> dict[str, float]:
        """Return the metrics of a model with these weights on test rows; only counts if rows are too few."""
        numbers: dict[str, float] = {EXAMPLES: len(rows.y), "positives": self._positives(rows)}
        if not self._enough(rows):
            return numbers
        scenario = self._runtime.scenario
        predicted, loss = self._runtime.trainer.evaluate(weights, rows.x, rows.y)
        names = [name for name in self._names if name != "loss"]
        rng = generator(scenario.seed, "bootstrap", client=client)
        found = metrics.bootstrap(self._task, rows.y, predicted, names, rng, scenario.output.bootstrap)
        for name, interval in found.items():
            numbers |= {name: interval.value, f"{name}-low": interval.low, f"{name}-high": interval.high}
        return numbers | {"loss": loss}

    def _predictions(
        self, request: ModelRequest, evaluated: Sequence[tuple[int, Rows]], states: StateBatch | None
    ) -> list[Found]:
        """Return the predictions for each client's rows, in one pass if all clients share their weights."""
        if not evaluated:
            return []
        trainer, weights = self._runtime.trainer, self._runtime.weights(request)
        if not self._runtime.weight_spec.personal:
            return trainer.evaluate_many(weights, [(rows.x, rows.y) for _, rows in evaluated])
        return [
            trainer.evaluate(self._weights_of(weights, client, states), rows.x, rows.y)
            for client, rows in evaluated
        ]

    def _weights_of(self, weights: Arrays, client: int, states: StateBatch | None) -> Arrays:
        """Return all weights of a client's model, with its own personal weights if it has any."""
        positions = self._runtime.weight_spec.personal
        if not positions or states is None or client not in states.clients:
            return weights
        row = int(np.searchsorted(states.clients, client))  # clients are ascending
        own = personal_weights(positions, {name: values[row] for name, values in states.arrays.items()})
        return weights if own is None else replaced(weights, positions, own)

    def _enough(self, rows: Rows) -> bool:
        """Return whether a metric of these rows may be sent: with too few, it would reveal single rows."""
        return len(rows.y) >= self._runtime.scenario.preprocessing.min_count

    def _positives(self, rows: Rows) -> int:
        """Count rows of the positive class; -1 if the count, or its complement, is too small to disclose."""
        if self._task != "binary":
            return -1
        positives, least = int(rows.y.sum()), self._runtime.scenario.preprocessing.min_count
        return positives if min(positives, len(rows.y) - positives) >= least else -1


def _reply(numbers: Mapping[str, float]) -> RecordDict:
    return RecordDict({METRICS_RECORD: metric_record(numbers)})


def _together(by_client: Mapping[int, Mapping[str, float]]) -> RecordDict:
    """Return one reply for several clients: the mean of each metric by examples, and each client's own."""
    rows = list(by_client.values())
    numbers = {EXAMPLES: sum(row[EXAMPLES] for row in rows)}
    for name in rows[0]:
        if name != EXAMPLES:
            have = [row for row in rows if math.isfinite(row[name])]
            examples = sum(row[EXAMPLES] for row in have)
            total = sum(row[EXAMPLES] * row[name] for row in have)
            numbers[name] = total / examples if examples else math.nan
    return RecordDict({METRICS_RECORD: metric_record(numbers), CLIENTS: client_table(list(by_client), rows)})
