"""Several clients of one process trained together: in stacks, or one by one.

Where the server only wants the mean of their weights, it is summed here instead of sent one by one.
Which clients are together, and in which stacks, follows from the message alone, so that the bits of a
result do not depend on who computed it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from shoal.clients.adversary import Adversary
from shoal.clients.runtime import ClientRuntime, Rows
from shoal.clients.training.local_settings import LocalTask, local_settings
from shoal.clients.training.objective import LocalObjective
from shoal.clients.training.result import LocalResult, RunningMean, reply
from shoal.clients.update.pipeline import finite
from shoal.clients.update.protection import UpdateProtection, protect
from shoal.common import records
from shoal.common.errors import NonFiniteError
from shoal.common.origin import Origin
from shoal.common.privacy.record import epsilon_after, require_budget
from shoal.common.profiling import span
from shoal.common.records import (
    EPSILON,
    EPSILON_NEXT,
    EXAMPLES,
    METRICS_RECORD,
    TRACES,
    UPDATE_BYTES,
    WEIGHT,
    WITHIN,
)
from shoal.common.seeds import generator

_TRIAL_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class CohortReply:
    """The answer of some clients: of one, or the mean of several.

    Attributes:
        clients: indices; content: the reply, `None` if they failed; error: why.
    """

    clients: Sequence[int]
    content: RecordDict | None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A client that is about to train, and whose update it will be."""

    task: LocalTask
    origin: Origin
    objective: LocalObjective | None


def train_cohort(
    runtime: ClientRuntime, config: ConfigRecord, arrays: ArrayRecord, clients: Sequence[int]
) -> list[CohortReply]:
    """Train clients from the server's weights for one round.

    Args:
        runtime: data and model of this process.
        config: the server's; "path" is "stacked" or "sequential", "reduce" asks for the mean.
        arrays: the server's weights.
        clients: indices, ascending.

    Returns:
        A part for each client; with "reduce" one part for all that succeeded, first, and one for each
        that failed.
    """
    runtime.use_preprocessing(str(config["preprocessing"]))
    work, parts = _open(runtime, config, clients)
    weights = records.record_to_weights(arrays)
    train = _stacked if config.get("path") == "stacked" else _one_by_one
    protection = protect(runtime, config)

    def fail(client: int, error: Exception) -> None:
        parts.append(CohortReply([client], None, error))

    trained = train(runtime, weights, work, protection, fail)
    if runtime.adversary is not None:
        trained = _altered(runtime, runtime.adversary, config, weights, protection, trained, fail)
    if config.get("reduce"):
        mean = RunningMean()
        for one in trained:
            with span("reduce"):
                mean.add(one)
        if not mean.clients:
            return parts
        return [CohortReply(mean.clients, mean.reply(arrays, _told(runtime, protection, weights))), *parts]
    done = [CohortReply([one.client], reply(one, _told(runtime, protection, weights))) for one in trained]
    return sorted([*done, *parts], key=lambda part: part.clients[0])


def _told(
    runtime: ClientRuntime, protection: UpdateProtection, weights: Sequence[NDArray[Any]]
) -> dict[str, float]:
    """Return what is the same for all clients of a process; `traces` counts up to this call."""
    told: dict[str, float] = {TRACES: runtime.traces}
    size = protection.pipeline.wire_bytes(weights)
    return told if size is None else {**told, UPDATE_BYTES: size}


def trial(runtime: ClientRuntime, config: ConfigRecord, arrays: ArrayRecord, client: int) -> RecordDict:
    """Measure what a round costs a client, stacked and one by one, on this client's rows."""
    from shoal.clients.training.stacked import why_not  # TensorFlow takes seconds to import

    runtime.use_preprocessing(str(config["preprocessing"]))
    weights, examples = records.record_to_weights(arrays), 0
    numbers = {EXAMPLES: examples, "sequential-seconds": 0.0, "stacked-seconds": 0.0}
    reason = why_not(runtime.trainer.model)
    if not reason:
        work, _ = _open(runtime, config, [client])
        protection = protect(runtime, config)

        def seconds(train: Callable[..., Iterator[LocalResult]], times: int) -> float:
            return _seconds(lambda: train(runtime, weights, work * times, protection, _raise)) / times

        numbers["sequential-seconds"] = seconds(_one_by_one, 2)
        numbers["stacked-seconds"] = seconds(_stacked, _TRIAL_CLIENTS)
    return RecordDict(
        {METRICS_RECORD: records.metric_record(numbers), "trial": ConfigRecord({"reason": reason})}
    )


def _seconds(work: Callable[[], Iterator[LocalResult]]) -> float:
    """Return the seconds of the better of two goes, after one that compiles."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in work():
            pass
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def _raise(client: int, error: Exception) -> None:
    raise error


_Work = list[_Ready]


def _open(
    runtime: ClientRuntime, config: ConfigRecord, clients: Sequence[int]
) -> tuple[_Work, list[CohortReply]]:
    """Load clients' rows and settings; those that cannot be loaded have failed."""
    seed, number = runtime.scenario.seed, _round(config)
    mu = float(cast("float", config.get("proximal-mu", 0.0)))
    objective = LocalObjective(mu) if mu else None
    work: _Work = []
    failed = []
    for client in clients:
        origin = Origin(seed, number, client)
        try:
            rows: Rows = runtime.training_rows(origin)
            settings = local_settings(runtime.scenario, config, number, client)
        except Exception as error:
            failed.append(CohortReply([client], None, error))
        else:
            rng = generator(seed, "shuffle", round=number, client=client)
            work.append(_Ready(LocalTask(rows.x, rows.y, settings, rng), origin, objective))
    return work, failed


def _round(config: ConfigRecord) -> int:
    return int(cast("int", config.get("server-round", 0)))


_Fail = Callable[[int, Exception], None]


def _one_by_one(
    runtime: ClientRuntime,
    weights: list[NDArray[Any]],
    work: _Work,
    protection: UpdateProtection,
    fail: _Fail,
) -> Iterator[LocalResult]:
    for ready in work:
        started, task, client = time.perf_counter(), ready.task, ready.origin.client
        try:
            new, loss, steps = _train(runtime, weights, ready)
        except Exception as error:
            fail(client, error)
            continue
        with span("reduce"):
            own = [w[None] for w in new]
            (within,) = protection.within(weights, own)
            beside = _beside(runtime, protection, ready.origin, len(task.y), within)
            left, leaves = protection.pipeline.apply(weights, own, [ready.origin])
        if leaves[0]:
            seconds, weight = time.perf_counter() - started, protection.weight(len(task.y))
            arrays = [w[0] for w in left]
            yield LocalResult(client, len(task.y), loss, steps, seconds, arrays, weight, beside)
        else:
            fail(client, NonFiniteError.after_update())


def _train(
    runtime: ClientRuntime, weights: list[NDArray[Any]], ready: _Ready
) -> tuple[list[NDArray[Any]], float, int]:
    """Train one client. With DP-SGD its loss is NaN: the true one would tell of rows without noise."""
    task, origin, objective = ready.task, ready.origin, ready.objective
    unit = runtime.scenario.privacy.unit
    if unit == "local" or (unit == "client" and runtime.scenario.secure.aggregation):
        runtime.client_plan.require(runtime.charge(origin.round))
    if unit != "record":
        return runtime.trainer.train(weights, task.x, task.y, task.settings, task.rng, objective)
    plan = runtime.record_plan(len(task.y))
    require_budget(plan, runtime.charge(origin.round))
    noise, batches = (origin.draws(purpose, runtime.source) for purpose in ("gradient-noise", "batches"))
    new, steps = runtime.private.train(
        weights, task.x, task.y, task.settings, plan, noise, batches, objective
    )
    return new, math.nan, steps


def _beside(
    runtime: ClientRuntime, protection: UpdateProtection, origin: Origin, rows: int, within: float | None
) -> dict[str, float]:
    """Return what a client tells beside its weights: of its update, where that leaves, or of its budget.

    What DP-SGD has spent follows from the number of rows, so it is not told where that is not.
    """
    if runtime.scenario.privacy.unit == "record" and not runtime.scenario.secure.aggregation:
        plan = runtime.record_plan(rows)
        rounds = runtime.charged(origin.round)
        return {EPSILON: epsilon_after(plan, rounds), EPSILON_NEXT: epsilon_after(plan, rounds + 1)}
    if protection.clip_norm is None:
        return {}
    told = {WEIGHT: protection.weight(rows)}
    return told if within is None else {**told, WITHIN: within}


def _stacked(
    runtime: ClientRuntime,
    weights: list[NDArray[Any]],
    work: _Work,
    protection: UpdateProtection,
    fail: _Fail,
) -> Iterator[LocalResult]:
    for stack in _stacks(work, runtime.stack_limit(weights)):
        started = time.perf_counter()
        found = runtime.stacked.train(weights, [ready.task for ready in stack], stack[0].objective)
        sound = np.isfinite(found.losses) & finite(found.weights)
        with span("reduce"):
            origins = [ready.origin for ready in stack]
            within = protection.within(weights, found.weights)
            left, leaves = protection.pipeline.apply(weights, found.weights, origins)
        seconds = (time.perf_counter() - started) / len(stack)
        for k, ready in enumerate(stack):
            task, client, loss, steps = ready.task, ready.origin.client, found.losses[k], found.steps[k]
            if not sound[k]:
                rate = task.settings.learning_rate
                fail(client, NonFiniteError.after_training(float(loss), int(steps), rate))
            elif not leaves[k]:
                fail(client, NonFiniteError.after_update())
            else:
                own, rows = [w[k] for w in left], len(task.y)
                beside = _beside(runtime, protection, ready.origin, rows, within[k])
                weight = protection.weight(rows)
                yield LocalResult(client, rows, float(loss), int(steps), seconds, own, weight, beside)


def _stacks(work: _Work, limit: int) -> Iterator[_Work]:
    """Cut clients into stacks of at most `limit`, whose steps differ by at most a factor of two.

    A client of a stack that has done its steps is computed on, in vain, until the last one is done.
    """
    stack: _Work = []
    for ready in sorted(work, key=lambda one: (-len(one.task.y), one.origin.client)):
        if stack and (len(stack) == limit or 2 * len(ready.task.y) < len(stack[0].task.y)):
            yield stack
            stack = []
        stack.append(ready)
    if stack:
        yield stack


def _altered(
    runtime: ClientRuntime,
    adversary: Adversary,
    config: ConfigRecord,
    weights: list[NDArray[Any]],
    protection: UpdateProtection,
    trained: Iterator[LocalResult],
    fail: _Fail,
) -> Iterator[LocalResult]:
    """Let malicious clients change what they send, after all that an honest client does to it."""
    # Where updates leave, they are changes of nothing.
    base = [np.zeros_like(w) for w in weights] if protection.pipeline.as_updates else weights

    def honest(clients: Sequence[int]) -> list[list[NDArray[Any]]]:
        fellows, _ = _open(runtime, config, clients)
        found = _one_by_one(runtime, weights, fellows, protection, lambda client, error: None)
        return [one.weights for one in found]

    number = _round(config)
    for one in trained:
        origin = Origin(runtime.scenario.seed, number, one.client)
        sent = adversary.altered(base, one.weights, origin, honest)
        if records.all_finite(sent):
            yield replace(one, weights=sent)
        else:
            fail(one.client, NonFiniteError.forged())
