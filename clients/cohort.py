"""Several clients of one process trained together: in stacks, or one by one.

Where the server only wants the mean of their weights, it is summed here instead of sent one by one.
Which clients are together, and in which stacks, follows from the message alone, so that the bits of a
result do not depend on who computed it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from clients.attacks.adversary import Adversary
from clients.local_settings import LocalTask, local_settings
from clients.resident import Resident, Rows
from clients.update.pipeline import finite
from clients.update.protection import Protection, protect
from clients.update.step import Origin
from common import records
from common.errors import NonFiniteError
from common.privacy.record import epsilon_after, require_budget
from common.profiling import span
from common.records import (
    ARRAYS,
    CLIENTS,
    EPSILON,
    EPSILON_NEXT,
    EXAMPLES,
    METRICS_RECORD,
    TRACES,
    TRAIN_LOSS,
    UPDATE_BYTES,
    WEIGHT,
    WITHIN,
)
from common.seeds import generator

_TRIAL_CLIENTS = 16
_OWN = (TRAIN_LOSS, EPSILON, EPSILON_NEXT)  # numbers of each client that have no sum


@dataclass(frozen=True, slots=True)
class Part:
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


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a client has learnt; `weight` is how much it counts in a mean, `beside` what it tells further."""

    client: int
    examples: int
    loss: float
    steps: int
    seconds: float
    weights: list[NDArray[Any]]
    weight: float
    beside: Mapping[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Return what is told of the client beside its weights."""
        return {
            EXAMPLES: self.examples,
            TRAIN_LOSS: self.loss,
            "steps": self.steps,
            "seconds": self.seconds,
            **self.beside,
        }


def train_cohort(
    resident: Resident, config: ConfigRecord, arrays: ArrayRecord, clients: Sequence[int]
) -> list[Part]:
    """Train clients from the server's weights for one round.

    Args:
        resident: data and model of this process.
        config: the server's; "path" is "stacked" or "sequential", "reduce" asks for the mean.
        arrays: the server's weights.
        clients: indices, ascending.

    Returns:
        A part for each client; with "reduce" one part for all that succeeded, first, and one for each
        that failed.
    """
    resident.use_preprocessing(str(config["preprocessing"]))
    work, parts = _open(resident, config, clients)
    weights = records.record_to_weights(arrays)
    train = _stacked if config.get("path") == "stacked" else _one_by_one
    protection = protect(resident, config)

    def fail(client: int, error: Exception) -> None:
        parts.append(Part([client], None, error))

    trained = train(resident, weights, work, protection, fail)
    if resident.adversary is not None:
        trained = _altered(resident, resident.adversary, config, weights, protection, trained, fail)
    if config.get("reduce"):
        mean = _Mean()
        for one in trained:
            with span("reduce"):
                mean.add(one)
        if not mean.clients:
            return parts
        return [Part(mean.clients, mean.reply(arrays, _told(resident, protection, weights))), *parts]
    done = [Part([one.client], _reply(one, _told(resident, protection, weights))) for one in trained]
    return sorted([*done, *parts], key=lambda part: part.clients[0])


def _told(resident: Resident, protection: Protection, weights: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Return what is the same for all clients of a process; `traces` counts up to this call."""
    told: dict[str, float] = {TRACES: resident.traces}
    size = protection.pipeline.wire_bytes(weights)
    return told if size is None else {**told, UPDATE_BYTES: size}


def trial(resident: Resident, config: ConfigRecord, arrays: ArrayRecord, client: int) -> RecordDict:
    """Measure what a round costs a client, stacked and one by one, on this client's rows."""
    from clients.stacked import why_not  # TensorFlow takes seconds to import

    resident.use_preprocessing(str(config["preprocessing"]))
    weights, examples = records.record_to_weights(arrays), 0
    numbers = {EXAMPLES: examples, "sequential-seconds": 0.0, "stacked-seconds": 0.0}
    reason = why_not(resident.trainer.model)
    if not reason:
        work, _ = _open(resident, config, [client])
        protection = protect(resident, config)

        def seconds(train: Callable[..., Iterator[_Trained]], times: int) -> float:
            return _seconds(lambda: train(resident, weights, work * times, protection, _raise)) / times

        numbers["sequential-seconds"] = seconds(_one_by_one, 2)
        numbers["stacked-seconds"] = seconds(_stacked, _TRIAL_CLIENTS)
    return RecordDict(
        {METRICS_RECORD: records.metric_record(numbers), "trial": ConfigRecord({"reason": reason})}
    )


def _seconds(work: Callable[[], Iterator[_Trained]]) -> float:
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


def _open(resident: Resident, config: ConfigRecord, clients: Sequence[int]) -> tuple[_Work, list[Part]]:
    """Load clients' rows and settings; those that cannot be loaded have failed."""
    seed, number = resident.scenario.seed, _round(config)
    work: _Work = []
    failed = []
    for client in clients:
        origin = Origin(seed, number, client)
        try:
            rows: Rows = resident.training_rows(origin)
            settings = local_settings(resident.scenario, config, number, client)
        except Exception as error:
            failed.append(Part([client], None, error))
        else:
            rng = generator(seed, "shuffle", round=number, client=client)
            work.append(_Ready(LocalTask(rows.x, rows.y, settings, rng), origin))
    return work, failed


def _round(config: ConfigRecord) -> int:
    return int(cast("int", config.get("server-round", 0)))


_Fail = Callable[[int, Exception], None]


def _one_by_one(
    resident: Resident, weights: list[NDArray[Any]], work: _Work, protection: Protection, fail: _Fail
) -> Iterator[_Trained]:
    for ready in work:
        started, task, client = time.perf_counter(), ready.task, ready.origin.client
        try:
            new, loss, steps = _train(resident, weights, task, ready.origin)
        except Exception as error:
            fail(client, error)
            continue
        with span("reduce"):
            own = [w[None] for w in new]
            (within,) = protection.within(weights, own)
            beside = _beside(resident, protection, ready.origin, len(task.y), within)
            left, leaves = protection.pipeline.apply(weights, own, [ready.origin])
        if leaves[0]:
            seconds, weight = time.perf_counter() - started, protection.weight(len(task.y))
            arrays = [w[0] for w in left]
            yield _Trained(client, len(task.y), loss, steps, seconds, arrays, weight, beside)
        else:
            fail(client, NonFiniteError.after_update())


def _train(
    resident: Resident, weights: list[NDArray[Any]], task: LocalTask, origin: Origin
) -> tuple[list[NDArray[Any]], float, int]:
    """Train one client. With DP-SGD its loss is NaN: the true one would tell of rows without noise."""
    unit = resident.scenario.privacy.unit
    if unit == "local" or (unit == "client" and resident.scenario.secure.aggregation):
        resident.client_plan.require(resident.charge(origin.round))
    if unit != "record":
        return resident.trainer.train(weights, task.x, task.y, task.settings, task.rng)
    plan = resident.record_plan(len(task.y))
    require_budget(plan, resident.charge(origin.round))
    noise, batches = (origin.draws(purpose, resident.source) for purpose in ("gradient-noise", "batches"))
    new, steps = resident.private.train(weights, task.x, task.y, task.settings, plan, noise, batches)
    return new, math.nan, steps


def _beside(
    resident: Resident, protection: Protection, origin: Origin, rows: int, within: float | None
) -> dict[str, float]:
    """Return what a client tells beside its weights: of its update, where that leaves, or of its budget.

    What DP-SGD has spent follows from the number of rows, so it is not told where that is not.
    """
    if resident.scenario.privacy.unit == "record" and not resident.scenario.secure.aggregation:
        plan = resident.record_plan(rows)
        rounds = resident.charged(origin.round)
        return {EPSILON: epsilon_after(plan, rounds), EPSILON_NEXT: epsilon_after(plan, rounds + 1)}
    if protection.clip_norm is None:
        return {}
    told = {WEIGHT: protection.weight(rows)}
    return told if within is None else {**told, WITHIN: within}


def _stacked(
    resident: Resident, weights: list[NDArray[Any]], work: _Work, protection: Protection, fail: _Fail
) -> Iterator[_Trained]:
    for stack in _stacks(work, resident.stack_limit(weights)):
        started = time.perf_counter()
        found = resident.stacked.train(weights, [ready.task for ready in stack])
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
                beside = _beside(resident, protection, ready.origin, rows, within[k])
                weight = protection.weight(rows)
                yield _Trained(client, rows, float(loss), int(steps), seconds, own, weight, beside)


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
    resident: Resident,
    adversary: Adversary,
    config: ConfigRecord,
    weights: list[NDArray[Any]],
    protection: Protection,
    trained: Iterator[_Trained],
    fail: _Fail,
) -> Iterator[_Trained]:
    """Let malicious clients change what they send, after all that an honest client does to it."""
    # Where updates leave, they are changes of nothing.
    base = [np.zeros_like(w) for w in weights] if protection.pipeline.as_updates else weights

    def honest(clients: Sequence[int]) -> list[list[NDArray[Any]]]:
        fellows, _ = _open(resident, config, clients)
        found = _one_by_one(resident, weights, fellows, protection, lambda client, error: None)
        return [one.weights for one in found]

    number = _round(config)
    for one in trained:
        origin = Origin(resident.scenario.seed, number, one.client)
        sent = adversary.altered(base, one.weights, origin, honest)
        if records.all_finite(sent):
            yield replace(one, weights=sent)
        else:
            fail(one.client, NonFiniteError.forged())


@dataclass(slots=True)
class _Mean:
    """The weighted mean of what clients have learnt, summed as it comes: one model's memory for any number.

    They are weighted by examples; where their updates leave, as the protection says, and summed in float64,
    so that rounding does not add to what one client can change.
    """

    clients: list[int] = field(default_factory=list)
    rows: list[_Trained] = field(default_factory=list)
    sums: list[NDArray[Any]] = field(default_factory=list)
    scratch: list[NDArray[Any]] = field(default_factory=list)

    def add(self, one: _Trained) -> None:
        if not self.sums:
            least = np.float64 if WEIGHT in one.beside else np.float32
            kinds = [np.result_type(w.dtype, least) for w in one.weights]
            self.sums = [np.zeros(w.shape, kind) for w, kind in zip(one.weights, kinds, strict=True)]
            self.scratch = [np.empty_like(total) for total in self.sums]
        for total, scratch, w in zip(self.sums, self.scratch, one.weights, strict=True):
            np.multiply(w, one.weight, out=scratch, casting="same_kind")
            np.add(total, scratch, out=total)
        self.clients.append(one.client)
        self.rows.append(replace(one, weights=[]))

    def reply(self, like: ArrayRecord, told: Mapping[str, float]) -> RecordDict:
        """Return the mean, its metrics, and a table of what each client told."""
        rows = sorted(self.rows, key=lambda row: row.client)
        weight = sum(row.weight for row in rows)
        means = [
            (total / weight).astype(array.dtype)
            for total, array in zip(self.sums, like.values(), strict=True)
        ]
        sums = {
            name: sum(row.numbers()[name] for row in rows) for name in rows[0].numbers() if name not in _OWN
        }
        numbers = {**sums, TRAIN_LOSS: sum(row.loss * row.weight for row in rows) / weight, **told}
        table = records.client_table(
            [row.client for row in rows], [{**row.numbers(), **told} for row in rows]
        )
        arrays = records.weights_to_record(means)
        return RecordDict({ARRAYS: arrays, METRICS_RECORD: records.metric_record(numbers), CLIENTS: table})


def _reply(one: _Trained, told: Mapping[str, float]) -> RecordDict:
    arrays = records.weights_to_record(one.weights)
    return RecordDict({ARRAYS: arrays, METRICS_RECORD: records.metric_record({**one.numbers(), **told})})
