"""Measures the time of a client's round in each execution mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import ConfigRecord, RecordDict

from shoal.clients.algorithms.algorithm import ClientAlgorithm
from shoal.clients.local_round import Fail, LocalRound, ReadyClient
from shoal.clients.result import LocalResult
from shoal.clients.runtime import ClientRuntime
from shoal.common.messages.names import AUTOTUNE, EXAMPLES, METRICS_RECORD
from shoal.common.messages.replies import metric_record
from shoal.common.messages.requests import AutotuneRequest, TrainRequest

_STACK = 16  # clients in the measured stack
_Train = Callable[[list[ReadyClient], Fail], Iterable[list[LocalResult]]]
_ROUND = 1  # keys the random draws of the measurement, whose results are discarded


def autotune(runtime: ClientRuntime, request: AutotuneRequest, client: int) -> RecordDict:
    """Return the seconds that a client's round takes alone and in a stack, measured on this client's rows."""
    from shoal.clients.training.stacked import why_not  # TensorFlow takes seconds to import

    runtime.use_preprocessing(request.preprocessing)
    numbers = {EXAMPLES: 0, "sequential-seconds": 0.0, "stacked-seconds": 0.0}
    reason = why_not(runtime.trainer.model)
    if not reason:
        round_ = LocalRound(runtime, _training(request), ClientAlgorithm())
        (ready,) = round_.open([client], None, _raise)

        def seconds(train: _Train, clients: int) -> float:
            return _seconds(lambda: train([ready] * clients, _raise)) / clients

        numbers["sequential-seconds"] = seconds(round_.one_by_one, 2)
        numbers["stacked-seconds"] = seconds(round_.stacked, _STACK)
    return RecordDict({METRICS_RECORD: metric_record(numbers), AUTOTUNE: ConfigRecord({"reason": reason})})


def _training(request: AutotuneRequest) -> TrainRequest:
    """Return the request for a round that is measured and discarded."""
    return TrainRequest(
        weights=request.weights,
        frozen=request.frozen,
        frozen_hash=request.frozen_hash,
        preprocessing=request.preprocessing,
        round_number=_ROUND,
        learning_rate=request.learning_rate,
        execution_mode="sequential",
        reduce=False,
    )


def _seconds(work: Callable[[], Iterable[list[LocalResult]]]) -> float:
    """Return the seconds of the faster of two runs, after one that compiles."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in work():
            pass
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def _raise(client: int, error: Exception) -> None:
    raise error
