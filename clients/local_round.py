"""One round of local training for the clients of one process, alone or in stacks.

Start weights and states → local training → update → pipeline steps → `LocalResult`. The request and the
clients' rows alone determine which clients share a stack, so the bits of a result do not depend on the
worker that computed it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.algorithms import client_algorithm, require_protected
from shoal.clients.algorithms.algorithm import AlgorithmResult, ClientAlgorithm, LocalTraining
from shoal.clients.mechanisms import client_mechanism
from shoal.clients.result import LocalResult
from shoal.clients.runtime import ClientRuntime
from shoal.clients.state import StateBatch
from shoal.clients.training.local_settings import LocalTask, local_settings
from shoal.clients.training.objective import LocalObjective
from shoal.clients.update.pipeline import Pipeline, finite
from shoal.common.errors import NonFiniteError
from shoal.common.messages.requests import TrainRequest
from shoal.common.origin import Origin
from shoal.common.profiling import span
from shoal.common.seeds import generator
from shoal.common.update.spec import replaced

Fail = Callable[[int, Exception], None]  # (client, why it has no result)
State = Mapping[str, NDArray[Any]]
_log = logging.getLogger("shoal.training")
_PERSONAL = "personal."  # names of personal weights in a client's state, by position


@dataclass(frozen=True, slots=True)
class ReadyClient:
    """A client ready to train: its rows and settings, the origin of its update, and its state."""

    task: LocalTask
    origin: Origin
    state: State


class LocalRound:
    """The parts of a round that are the same for all clients of a process.

    Args:
        runtime: data and model; request: from the server.
        algorithm: the client half; `None` for the one that the scenario names.
    """

    def __init__(
        self, runtime: ClientRuntime, request: TrainRequest, algorithm: ClientAlgorithm | None = None
    ) -> None:
        runtime.use_preprocessing(request.preprocessing)
        self._runtime = runtime
        self._request = request
        self.spec = runtime.weight_spec
        self._start = runtime.weights(request)
        self._algorithm = client_algorithm(runtime.scenario.strategy.name) if algorithm is None else algorithm
        require_protected(runtime.scenario, self._algorithm)
        self.mechanism = client_mechanism(runtime, request)
        self.pipeline = Pipeline.of(self.mechanism.steps(), runtime.scenario.update)

    @property
    def shared_start(self) -> list[NDArray[Any]]:
        """The shared weights that all clients start from."""
        return self.spec.take_shared(self._start)

    def open(self, clients: Sequence[int], states: StateBatch | None, fail: Fail) -> list[ReadyClient]:
        """Load clients' rows, settings and states, and charge their accounts.

        A client that cannot be loaded, or whose budget does not allow the round, fails.
        """
        runtime, round_number = self._runtime, self._request.round_number
        seed, known = runtime.scenario.seed, _rows_of(states)
        ready = []
        for client in clients:
            origin = Origin(seed, round_number, client)
            try:
                rows = runtime.training_rows(origin)
                settings = local_settings(
                    runtime.scenario,
                    client,
                    round_number=round_number,
                    learning_rate=self._request.learning_rate,
                    class_weights=self._request.class_weights,
                )
                self.mechanism.charge(origin, len(rows.y))
            except Exception as error:
                fail(client, error)
                continue
            rng = generator(seed, "shuffle", dispatch=round_number, client=client)
            state = _state_of(states, known.get(client)) or self._initial_state()
            ready.append(ReadyClient(LocalTask(rows.x, rows.y, settings, rng), origin, state))
        return ready

    def train(self, ready: Sequence[ReadyClient], fail: Fail) -> Iterator[list[LocalResult]]:
        """Train clients, in stacks if request and mechanism allow it; yields the results of each stack."""
        stacked = self._request.execution_mode == "stacked" and self.mechanism.stacks
        return (self.stacked if stacked else self.one_by_one)(ready, fail)

    def one_by_one(self, ready: Sequence[ReadyClient], fail: Fail) -> Iterator[list[LocalResult]]:
        """Train one client after another; each is a stack of its own."""
        for one in ready:
            started, states = time.perf_counter(), _stacked_states([one])
            try:
                objective = _of_single(self._algorithm.local_objective(self._request, states))
                start = self._starts([one])
                whole = [w[0] if k in self.spec.personal else w for k, w in enumerate(start)]
                trained, loss, steps = self.mechanism.train(whole, one.task, one.origin, objective)
            except NonFiniteError as error:
                if not self.mechanism.hides_from_server:
                    fail(one.origin.client, error)
                    continue
                _log.warning("%s; the update counts as zero", error.message)
                trained, loss, steps = whole, math.nan, one.task.steps
            except Exception as error:
                fail(one.origin.client, error)
                continue
            new = [w[None] for w in trained]
            yield self._finish([one], start, new, np.array([loss]), np.array([steps]), started, fail)

    def stacked(self, ready: Sequence[ReadyClient], fail: Fail) -> Iterator[list[LocalResult]]:
        """Train clients in stacks."""
        for stack in _stacks(ready, self._runtime.stack_limit(self._start)):
            started = time.perf_counter()
            start = self._starts(stack)
            objective = self._algorithm.local_objective(self._request, _stacked_states(stack))
            found = self._runtime.stacked.train(start, [one.task for one in stack], objective)
            sound = np.isfinite(found.losses) & finite(found.weights)
            if self.mechanism.hides_from_server and not sound.all():
                _log.warning("training diverged at %d clients; their updates count as zero", sum(~sound))
                for start_, new in zip(start, found.weights, strict=True):
                    new[~sound] = np.broadcast_to(start_, new.shape)[~sound]
                sound = np.ones_like(sound)
            for k in np.flatnonzero(~sound):
                rate = stack[k].task.settings.learning_rate
                error = NonFiniteError.after_training(float(found.losses[k]), int(found.steps[k]), rate)
                fail(stack[k].origin.client, error)
            done = [one for one, good in zip(stack, sound, strict=True) if good]
            if done:
                weights = found.weights if sound.all() else [w[sound] for w in found.weights]
                kept = start if sound.all() else self._starts(done)
                losses, steps = found.losses[sound], found.steps[sound]
                yield self._finish(done, kept, weights, losses, steps, started, fail)

    def _starts(self, stack: Sequence[ReadyClient]) -> list[NDArray[Any]]:
        """Return the start weights of a stack; personal weights have a client axis."""
        positions = self.spec.personal
        own = [np.stack([one.state[f"{_PERSONAL}{k}"] for one in stack]) for k in positions]
        return replaced(self._start, positions, own)

    def _initial_state(self) -> State:
        trainable = [w for w, role in zip(self._start, self.spec.roles, strict=True) if role == "trainable"]
        personal = {f"{_PERSONAL}{k}": self._start[k] for k in self.spec.personal}
        steps = self.pipeline.init_state(self.shared_start)
        return {**self._algorithm.init_state(trainable), **personal, **steps}

    @span("reduce")
    def _finish(
        self,
        stack: Sequence[ReadyClient],
        start: Sequence[NDArray[Any]],
        trained: Sequence[NDArray[Any]],
        losses: NDArray[np.float64],
        steps: NDArray[np.int64],
        started: float,
        fail: Fail,
    ) -> list[LocalResult]:
        """Turn trained weights, (clients, ...), into results."""
        origins, states = [one.origin for one in stack], _stacked_states(stack)
        updates = [trained[k] - start[k] for k in self.spec.shared]
        within = self.mechanism.clipped(updates)
        after = self._after(start, trained, steps, states)
        left, remembered = self.pipeline.apply(updates, origins, states)
        new = {**states, **remembered, **after.states}
        new |= {f"{_PERSONAL}{k}": trained[k] for k in self.spec.personal}
        seconds = (time.perf_counter() - started) / len(stack)
        results = []
        for k, (one, good) in enumerate(zip(stack, finite(left), strict=True)):
            if not good:
                fail(one.origin.client, NonFiniteError.after_update())
                continue
            rows = len(one.task.y)
            results.append(
                LocalResult(
                    origin=one.origin,
                    examples=rows,
                    loss=math.nan if self.mechanism.hides_from_server else float(losses[k]),
                    steps=int(steps[k]),
                    seconds=seconds,
                    update=[u[k] for u in left],
                    weight=self.mechanism.weight(rows),
                    extra=[e[k] for e in after.extra],
                    state={name: values[k] for name, values in new.items()},
                    extra_metrics=self.mechanism.extra_metrics(one.origin, rows, within[k]),
                )
            )
        return results

    def _after(
        self,
        start: Sequence[NDArray[Any]],
        trained: Sequence[NDArray[Any]],
        steps: NDArray[np.int64],
        states: State,
    ) -> AlgorithmResult:
        trainable = [k for k, role in enumerate(self.spec.roles) if role == "trainable"]
        training = LocalTraining(
            [start[k] for k in trainable], [trained[k] for k in trainable], steps, self._request.learning_rate
        )
        return self._algorithm.finish(training, self._request, states)


def personal_weights(positions: Sequence[int], state: State) -> list[NDArray[Any]] | None:
    """Return a client's personal weights; `None` where it has none yet."""
    found = [state.get(f"{_PERSONAL}{k}") for k in positions]
    return None if any(w is None for w in found) else [w for w in found if w is not None]


def _rows_of(states: StateBatch | None) -> dict[int, int]:
    """Return client → row in a batch of states."""
    return {} if states is None else {int(client): k for k, client in enumerate(states.clients)}


def _state_of(states: StateBatch | None, row: int | None) -> State:
    if states is None or row is None:
        return {}
    return {name: values[row] for name, values in states.arrays.items()}


def _stacked_states(stack: Sequence[ReadyClient]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([one.state[name] for one in stack]) for name in stack[0].state}


def _of_single(objective: LocalObjective | None) -> LocalObjective | None:
    """Return the objective of a stack of one as an objective of a single client."""
    if objective is None:
        return None
    linear = None if objective.linear is None else [part[0] for part in objective.linear]
    anchor = None if objective.anchor is None else [part[0] for part in objective.anchor]
    return LocalObjective(float(np.max(objective.mu)), anchor, linear)


def _stacks(ready: Sequence[ReadyClient], limit: int) -> Iterator[list[ReadyClient]]:
    """Divide clients into stacks of at most `limit`, whose step counts differ by at most a factor of two.

    A stack runs until its last client is done, so that shorter clients waste computation.
    """
    stack: list[ReadyClient] = []
    for one in sorted(ready, key=lambda one: (-len(one.task.y), one.origin.client)):
        if stack and (len(stack) == limit or 2 * len(one.task.y) < len(stack[0].task.y)):
            yield stack
            stack = []
        stack.append(one)
    if stack:
        yield stack
