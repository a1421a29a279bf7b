"""Runs clients on long-lived Ray workers, on this machine or over a cluster.

Workers live for the whole run, and for the next one if an `Engine` keeps them: TensorFlow is imported and the
model built and traced once per worker. Chunks wait in one queue, and idle workers take the chunk with the
longest forecast. A worker that dies is replaced and its chunk is retried; a worker whose chunk misses the
deadline is ended. A worker that exceeds its memory is replaced before the machine swaps. A worker gets work
only once it has started: one that waits for resources, because a node is lost, blocks nothing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from shoal.clients.state import StateBatch
from shoal.clients.worker import Answer, AppFactory, Finished, Job, WorkerContext
from shoal.common import profiling
from shoal.common.config import ResourcesConfig
from shoal.common.errors import WorkerError
from shoal.common.profiling import Span, span
from shoal.common.record_size import content_bytes
from shoal.simulations.engine.chunks import Chunk
from shoal.simulations.engine.cluster import ray_session
from shoal.simulations.engine.forecast import Forecast
from shoal.simulations.engine.placement import NodeLoad
from shoal.simulations.engine.run_worker import RunWorker
from shoal.simulations.engine.starting import LOOK_S, refuse_stuck
from shoal.simulations.results.text import size

_log = logging.getLogger("shoal.engine")

# With more clients than this, a worker rarely sees a client again before it has left the worker's cache.
_REMEMBERED = 10_000


@dataclass(slots=True, eq=False)
class _Slot:
    """One worker.

    Attributes:
        actor: Ray actor; number: index of the worker.
        starting: a call that ends when the worker has started, and returns its node; `None` afterwards.
        node: Ray's id of the node, "" before that.
        seen: clients whose data the worker has encoded.
        queue: its calls, in the order in which it runs them.
        freed: when it last finished a call.
        lag: smallest seconds from the end of a call, on the worker's clock, to its arrival on ours.
    """

    actor: Any
    number: int
    starting: Any
    node: str = ""
    seen: set[int] = field(default_factory=set)
    queue: list[Any] = field(default_factory=list)
    freed: float = 0.0
    lag: float = math.inf


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A chunk in progress, or one client of a chunk that has failed on too many workers.

    Attributes:
        chunk: index of the chunk; jobs: its clients; content: in Ray's store; size: its payload in bytes.
        examples: total over its clients; states: of those clients that have one.
        failures: workers that died on it so far; last: no further retry.
        suspect: a worker that had it died, possibly on another piece: its next worker gets nothing else.
    """

    chunk: int
    jobs: Sequence[Job]
    content: Any
    size: int
    examples: float
    states: StateBatch | None = None
    failures: int = 0
    last: bool = False
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class _Running:
    piece: _Piece
    slot: _Slot
    since: float


@dataclass(slots=True)
class _Phase:
    """One `execute` call: waiting, running and finished pieces, and how the workers spent their time."""

    started: float
    waiting: list[_Piece]
    answers: dict[int, list[Answer]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)  # nodes with an answer
    copied: set[_Piece] = field(default_factory=set)
    running: dict[Any, _Running] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    occupied: float = 0.0
    reached: set[tuple[str, int]] = field(default_factory=set)  # nodes, and the content sent to them

    def is_answered(self, piece: _Piece) -> bool:
        """Return whether each of its clients has an answer."""
        return self.answered.issuperset(job.node_id for job in piece.jobs)


class RayExecutor:
    """A pool of Ray actors, each a `RunWorker`."""

    def __init__(self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig) -> None:
        """Start or join Ray if necessary, and start the workers.

        Raises:
            WorkerError: if Ray is not available, or has too few resources.
        """
        self._resources = resources
        self._federation = federation
        self._forecasts: dict[str, Forecast] = {}
        self._loads: dict[str, NodeLoad] = {}
        self._failed_starts = 0
        self._closing = ExitStack()
        with ExitStack() as opening:
            session = opening.enter_context(ray_session(resources, federation.clients))
            self._runtime_env = session.runtime_env
            self._most_workers = session.most_workers
            self._memory_limit = 1_000_000 * resources.worker_memory_mb or session.memory // session.workers
            self._factory = ray.put(make_app)
            self._slots = [self._new_slot(number) for number in range(session.workers)]
            self._closing = opening.pop_all()

    def fits(self, clients: int) -> bool:
        """Return whether a new pool for this number of clients would have as many workers as this one."""
        return min(self._most_workers, clients) == len(self._slots)

    def serve(self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig) -> None:
        """Begin another run with the same workers; see `KeptExecutor.serve`."""
        self._resources, self._federation = resources, federation
        self._forecasts, self._loads, self._failed_starts = {}, {}, 0
        self._factory = ray.put(make_app)
        for number, slot in enumerate(self._slots):
            if slot.queue:  # the previous run was aborted: its calls may run for long
                self._replace(slot)
                continue
            starting = slot.actor.__ray_call__.remote(_serve, self._factory, federation)
            self._slots[number] = _Slot(slot.actor, number, starting, freed=time.perf_counter(), lag=slot.lag)

    def execute(
        self,
        chunks: Sequence[Chunk],
        jobs: Sequence[Sequence[Job]],
        states: Sequence[StateBatch | None],
        timeout_s: float | None,
    ) -> list[list[Answer] | None]:
        """Run chunks on the workers; see `Executor.execute`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with span("broadcast"):
            contents = {id(chunk.content): chunk.content for chunk in chunks}
            shared = {key: ray.put(content) for key, content in contents.items()}
        sizes = {key: content_bytes(content) for key, content in contents.items()}
        pieces = [
            _Piece(k, jobs[k], shared[id(chunk.content)], sizes[id(chunk.content)], chunk.examples, states[k])
            for k, chunk in enumerate(chunks)
        ]
        with span("wait"):
            phase = _Phase(time.perf_counter(), pieces)
            self._run(phase, deadline)
            self._account(phase, time.perf_counter() - phase.started)
        return [phase.answers.get(k) for k in range(len(chunks))]

    def _run(self, phase: _Phase, deadline: float | None) -> None:
        while phase.waiting or phase.running:
            self._hand_out(phase)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            starting = {slot.starting: slot for slot in self._slots if slot.starting is not None}
            # Until one worker has started, look at times whether any ever will.
            look = LOOK_S if len(starting) == len(self._slots) and (left is None or left > LOOK_S) else None
            ready, _ = ray.wait([*phase.running, *starting], num_returns=1, timeout=look or left)
            if not ready and look:
                refuse_stuck(time.perf_counter() - min(slot.freed for slot in self._slots))
                continue
            if not ready:
                self._give_up(phase)
                break
            if ready[0] in starting:
                self._admit(phase, starting[ready[0]])
            else:
                self._finish(phase, ready[0])

    def _admit(self, phase: _Phase, slot: _Slot) -> None:
        """Put a worker that has started into service, or start another if it failed.

        Raises:
            WorkerError: starting failed repeatedly; quotes Ray, as the process has not read any rows yet.
        """
        try:
            slot.node = ray.get(slot.starting)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts > self._resources.max_retries:
                raise WorkerError(f"workers failed to start: {error}") from error
            self._replace(slot)
            return
        self._failed_starts = 0
        self._occupied(phase, slot, phase.started)
        slot.starting = None
        self._load(slot).workers += 1

    def _hand_out(self, phase: _Phase) -> None:
        """Give each idle worker a chunk and, while many are left, a second one to queue behind it.

        The last chunks are held back for the first idle workers. When none is left, idle workers also run
        chunks that are queued behind another one elsewhere, in case that one hangs.
        """
        for slot in self._slots:
            if slot.starting is None and not slot.queue:
                if phase.waiting:
                    self._start(phase, slot, phase.waiting)
                elif queued := self._queued(phase):
                    phase.copied.add(queued)
                    self._call(phase, slot, queued)
        for slot in self._slots:
            clear = [piece for piece in phase.waiting if not piece.suspect]
            alone = len(slot.queue) == 1 and not phase.running[slot.queue[0]].piece.suspect
            if alone and clear and len(phase.waiting) > len(self._slots):
                self._start(phase, slot, clear)

    def _account(self, phase: _Phase, elapsed: float) -> None:
        """Record what the workers did while the server waited for them, as a mean over them."""
        workers = len(self._slots)
        known = {name: seconds / workers for name, seconds in phase.seconds.items()}
        profiling.move("wait", {**known, "idle": elapsed - phase.occupied / workers}, phase.spans)

    def close(self) -> None:
        """End the workers, and Ray if this pool started it."""
        with self._closing:  # has no effect the second time
            for slot in self._slots:
                ray.kill(slot.actor)
            self._slots.clear()

    def placement(self) -> list[NodeLoad]:
        """Return the work of each node so far, busiest first."""
        return sorted(self._loads.values(), key=lambda load: -load.messages)

    def _load(self, slot: _Slot) -> NodeLoad:
        return self._loads.setdefault(slot.node, NodeLoad(slot.node[:8]))

    def _new_slot(self, number: int) -> _Slot:
        actor = ray.remote(RunWorker).options(
            num_cpus=self._resources.threads_per_worker,
            num_gpus=self._resources.gpus_per_worker,
            max_restarts=0,
            runtime_env=self._runtime_env,
        )
        made = actor.remote(self._factory, self._federation)
        return _Slot(made, number, made.__ray_call__.remote(_node_id), freed=time.perf_counter())

    def _start(self, phase: _Phase, slot: _Slot, among: Sequence[_Piece]) -> None:
        """Give a worker the longest chunk whose data it has, or else a chunk whose data no worker has."""
        chosen = min(among, key=lambda piece: (self._rank(piece, slot), -self._forecast(piece), piece.chunk))
        phase.waiting.remove(chosen)
        self._call(phase, slot, chosen)

    def _queued(self, phase: _Phase) -> _Piece | None:
        """Return a piece that is queued behind another one in some worker, and that no other worker has."""
        queued = (phase.running[slot.queue[1]].piece for slot in self._slots if len(slot.queue) > 1)
        return next((piece for piece in queued if piece not in phase.copied), None)

    def _call(self, phase: _Phase, slot: _Slot, chosen: _Piece) -> None:
        if self._federation.clients <= _REMEMBERED:
            slot.seen.update(job.client for job in chosen.jobs)
        if (slot.node, id(chosen.content)) not in phase.reached:
            phase.reached.add((slot.node, id(chosen.content)))
            self._load(slot).bytes_down += chosen.size
        ref = slot.actor.run_measured.remote(chosen.content, chosen.jobs, chosen.states)
        slot.queue.append(ref)
        phase.running[ref] = _Running(chosen, slot, time.perf_counter())

    def _rank(self, piece: _Piece, slot: _Slot) -> int:
        first = piece.jobs[0].client
        if first in slot.seen:
            return 0
        return 2 if any(first in other.seen for other in self._slots) else 1

    def _forecast(self, piece: _Piece) -> float:
        forecast = self._forecasts.get(piece.jobs[0].message_type, Forecast())
        return forecast.seconds(len(piece.jobs), piece.examples)

    def _finish(self, phase: _Phase, ref: Any) -> None:
        """Store a finished chunk's answers, or retry it.

        Args:
            phase: the current one.
            ref: a call that has ended. Its worker runs calls in order, so its first call has ended too; if
                the worker died, all have.
        """
        ref = phase.running[ref].slot.queue.pop(0)
        ran = phase.running.pop(ref)
        try:
            finished: Finished = ray.get(ref)
        except RayTaskError as error:
            raise WorkerError(f"a worker failed outside the client's code:\n{error}") from error
        except (RayActorError, RayError) as error:
            self._occupied(phase, ran.slot, ran.since)
            self._load(ran.slot).lost += 1
            others = self._dismiss(phase, ran.slot)
            if others:  # it may have died on any of them: no client is blamed yet
                phase.waiting += [replace(piece, suspect=True) for piece in (ran.piece, *others)]
            elif not phase.is_answered(ran.piece):
                self._try_again(phase, ran.piece, error)
            return
        self._keep(phase, ran.piece.chunk, finished.answers)
        ran.slot.lag = min(ran.slot.lag, time.perf_counter() - finished.ended)
        self._measure(phase, ran, finished)
        self._occupied(phase, ran.slot, ran.since)
        if finished.memory > self._memory_limit:
            self._say_replaced(self._load(ran.slot), finished.memory)
            phase.waiting += self._dismiss(phase, ran.slot)

    def _say_replaced(self, load: NodeLoad, memory: int) -> None:
        """Count a worker that is replaced because of its memory, and say so the first times."""
        load.replaced += 1
        if load.replaced & (load.replaced - 1) == 0:  # 1, 2, 4, 8, …: a run may do so in every round
            _log.warning(
                "a worker is replaced because it holds %s, more than its %s (the %s. time); a new one takes "
                "seconds to start: raise resources.worker_memory_mb, or set resources.workers lower",
                size(memory),
                size(self._memory_limit),
                load.replaced,
            )

    def _keep(self, phase: _Phase, chunk: int, answers: Sequence[Answer]) -> None:
        """Store answers that are new: two workers may have run the same clients."""
        fresh = [answer for answer in answers if phase.answered.isdisjoint(answer.nodes)]
        phase.answers.setdefault(chunk, []).extend(fresh)
        phase.answered.update(node for answer in fresh for node in answer.nodes)

    def _occupied(self, phase: _Phase, slot: _Slot, since: float) -> None:
        """Add the time since a worker received a call, or finished the previous one."""
        now = time.perf_counter()
        phase.occupied += now - max(since, slot.freed)
        slot.freed = now

    def _dismiss(self, phase: _Phase, slot: _Slot) -> list[_Piece]:
        """Replace a worker, and return its unfinished pieces."""
        self._replace(slot)
        left = [phase.running.pop(ref).piece for ref in slot.queue]
        return [piece for piece in left if not phase.is_answered(piece)]

    def _try_again(self, phase: _Phase, piece: _Piece, error: Exception) -> None:
        """Requeue a piece whose worker died, divide it into single clients, or give a client up.

        It is retried unchanged first, so that its bits stay the same; after enough failures one of its
        clients must be at fault, and the others should not be lost with it.
        """
        failures = piece.failures + 1
        if piece.last or (failures > self._resources.max_retries and len(piece.jobs) == 1):
            self._keep(phase, piece.chunk, [_lost(piece.jobs, failures, error)])
        elif failures <= self._resources.max_retries:
            phase.waiting.append(replace(piece, failures=failures, suspect=True))
        else:
            one = replace(piece, examples=piece.examples / len(piece.jobs), failures=failures)
            phase.waiting += [replace(one, jobs=[job], last=True, suspect=True) for job in piece.jobs]

    def _measure(self, phase: _Phase, ran: _Running, finished: Finished) -> None:
        """Add a chunk's times to those of the phase, and to the forecast."""
        busy, jobs = sum(finished.seconds.values()), ran.piece.jobs
        for name, seconds in finished.seconds.items():
            phase.seconds[name] = phase.seconds.get(name, 0.0) + seconds
        forecast = self._forecasts.setdefault(jobs[0].message_type, Forecast())
        forecast.learn(len(jobs), ran.piece.examples, busy)
        load = self._load(ran.slot)
        load.messages += len(jobs)
        load.seconds += busy
        load.bytes_up += sum(content_bytes(a.content) for a in finished.answers if a.content is not None)
        # The worker may be on another machine, whose clock differs.
        lag, track = ran.slot.lag, 1 + ran.slot.number
        phase.spans += [replace(s, track=track, start=s.start + lag) for s in finished.spans]

    def _give_up(self, phase: _Phase) -> None:
        """End the workers that are still running at the deadline."""
        for slot in {ran.slot for ran in phase.running.values()}:
            self._occupied(phase, slot, phase.running[slot.queue[0]].since)
            self._replace(slot)
        # A divided chunk has answers of some of its clients: they count.
        phase.running.clear()
        phase.waiting.clear()

    def _replace(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self._slots[slot.number] = self._new_slot(slot.number)


def _lost(jobs: Sequence[Job], times: int, error: Exception) -> Answer:
    reason = f"WorkerError: the worker died {times} times on this client's chunk ({type(error).__name__})"
    return Answer(None, reason, None, [job.node_id for job in jobs])


def _serve(worker: RunWorker, make_app: AppFactory, federation: WorkerContext) -> str:
    """Let a worker begin another run, and return its node id; called in the worker."""
    worker.serve(make_app, federation)
    return _node_id(worker)


def _node_id(worker: RunWorker) -> str:
    """Return the id of the worker's node; called in the worker."""
    node: str = ray.get_runtime_context().get_node_id()
    return node
