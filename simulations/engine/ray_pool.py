"""Runs clients on resident Ray workers.

Workers stay for the whole run: TensorFlow is imported and the model is built and traced once a
worker. Chunks wait in one queue, longest first, and idle workers take the next. A worker that dies is
replaced and its chunk is tried again; a chunk that misses the deadline costs its worker. A worker that
has grown beyond its memory is replaced before the machine swaps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from common.config import ResourcesConfig
from common.errors import WorkerError
from simulations.engine.chunks import Chunk
from simulations.engine.environment import worker_environment
from simulations.engine.worker import Answer, AppFactory, Federation, Job, Worker

# Of more clients than these, a worker would rarely see one again before it is out of the worker's cache.
_REMEMBERED = 10_000


def worker_count(resources: ResourcesConfig, clients: int, gpus: float = 0.0) -> int:
    """Return how many workers to start: as asked, or as many as cores and GPUs allow; at most clients.

    Raises:
        WorkerError: GPUs are asked for and there is none.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = resources.workers or max(1, cores // resources.threads_per_worker)
    if resources.gpus_per_worker:
        fit = int(gpus / resources.gpus_per_worker)
        if not fit or resources.workers > fit:
            raise WorkerError(
                f"{resources.workers or 'the'} workers want {resources.gpus_per_worker:g} GPUs each, "
                f"Ray sees {gpus:g}",
                hint="lower resources.workers or resources.gpus_per_worker; 0 trains on the CPU",
            )
        wanted = min(wanted, fit)
    return max(1, min(wanted, clients))


@dataclass(slots=True, eq=False)
class _Slot:
    """One worker: its actor, and the clients whose data it has encoded."""

    actor: Any
    seen: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Phase:
    """The chunks of one `execute` call: what waits, what runs, what is done."""

    chunks: Sequence[Chunk]
    jobs: Sequence[Sequence[Job]]
    contents: Sequence[Any]
    waiting: list[int]
    running: dict[Any, tuple[int, _Slot]] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    answers: dict[int, list[Answer]] = field(default_factory=dict)


class RayExecutor:
    """A pool of Ray actors that each hold a `Worker`."""

    def __init__(self, make_app: AppFactory, federation: Federation, resources: ResourcesConfig) -> None:
        """Start Ray if it is not running, and the workers.

        Raises:
            WorkerError: if Ray cannot be started.
        """
        self._environment = worker_environment(resources.threads_per_worker)
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            without = resources.model_copy(update={"gpus_per_worker": 0.0})
            _start_ray(worker_count(without, federation.clients) * resources.threads_per_worker)
        count = worker_count(resources, federation.clients, ray.cluster_resources().get("GPU", 0.0))
        if not self._owns_ray:
            _check_room(count, resources.threads_per_worker)
        self._memory_limit = 1_000_000 * resources.worker_memory_mb or _machine_memory() * 4 // 5 // count
        self._resources = resources
        self._factory = ray.put(make_app)
        self._federation = federation
        self._slots = [self._new_slot() for _ in range(count)]
        self._closed = False

    def execute(
        self, chunks: Sequence[Chunk], jobs: Sequence[Sequence[Job]], timeout_s: float | None
    ) -> list[list[Answer] | None]:
        """Run chunks on the workers; see `Executor.execute`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        shared: dict[int, Any] = {}
        for chunk in chunks:
            if id(chunk.content) not in shared:
                shared[id(chunk.content)] = ray.put(chunk.content)
        longest_first = sorted(range(len(chunks)), key=lambda i: -chunks[i].cost)
        phase = _Phase(chunks, jobs, [shared[id(c.content)] for c in chunks], longest_first)
        idle = list(self._slots)
        while phase.waiting or phase.running:
            while idle and phase.waiting:
                self._start(phase, idle.pop(0))
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _ = ray.wait(list(phase.running), num_returns=1, timeout=left)
            if not ready:
                self._give_up(phase)
                break
            idle.append(self._finish(phase, ready[0]))
        return [phase.answers.get(i) for i in range(len(chunks))]

    def close(self) -> None:
        """End the workers, and Ray if this pool started it."""
        if self._closed:
            return
        self._closed = True
        for slot in self._slots:
            ray.kill(slot.actor)
        if self._owns_ray:
            ray.shutdown()

    def _new_slot(self) -> _Slot:
        actor = ray.remote(Worker).options(
            num_cpus=self._resources.threads_per_worker,
            num_gpus=self._resources.gpus_per_worker,
            max_restarts=0,
            runtime_env={"env_vars": self._environment},
        )
        return _Slot(actor.remote(self._factory, self._federation))

    def _start(self, phase: _Phase, slot: _Slot) -> None:
        """Give a worker the costliest chunk that it has data for, or else that nobody has."""
        chosen = min(
            phase.waiting, key=lambda index: (self._rank(phase, index, slot), -phase.chunks[index].cost)
        )
        phase.waiting.remove(chosen)
        if self._federation.clients <= _REMEMBERED:
            slot.seen.update(job.client for job in phase.jobs[chosen])
        ref = slot.actor.run_measured.remote(phase.contents[chosen], phase.jobs[chosen])
        phase.running[ref] = (chosen, slot)

    def _rank(self, phase: _Phase, index: int, slot: _Slot) -> int:
        first = phase.jobs[index][0].client
        if first in slot.seen:
            return 0
        return 2 if any(first in other.seen for other in self._slots) else 1

    def _finish(self, phase: _Phase, ref: Any) -> _Slot:
        """Take a finished chunk's answers; returns the worker that is now idle."""
        index, slot = phase.running.pop(ref)
        try:
            phase.answers[index], memory = ray.get(ref)
            if memory > self._memory_limit:
                slot = self._replace(slot)
        except RayTaskError as error:
            raise WorkerError(f"a worker failed outside the client's code:\n{error}") from error
        except (RayActorError, RayError) as error:
            slot = self._replace(slot)
            failures = phase.failures[index] = phase.failures.get(index, 0) + 1
            if failures > self._resources.max_retries:
                phase.answers[index] = [_lost(phase.jobs[index], failures, error)]
            else:
                phase.waiting.insert(0, index)
        return slot

    def _give_up(self, phase: _Phase) -> None:
        """End the workers that still run when the deadline has passed."""
        for _, slot in phase.running.values():
            self._replace(slot)
        phase.running.clear()
        phase.waiting.clear()

    def _replace(self, slot: _Slot) -> _Slot:
        ray.kill(slot.actor)
        fresh = self._new_slot()
        self._slots[self._slots.index(slot)] = fresh
        return fresh


def _machine_memory() -> int:
    """Return the bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _lost(jobs: Sequence[Job], times: int, error: Exception) -> Answer:
    reason = f"WorkerError: the worker died {times} times on this client's chunk ({type(error).__name__})"
    return Answer(None, reason, None, [job.node_id for job in jobs])


def _check_room(workers: int, threads: int) -> None:
    """Refuse to wait forever for workers that a running Ray has no room for."""
    free = ray.available_resources().get("CPU", 0.0)
    if free < workers * threads:
        raise WorkerError(
            f"the running Ray has {free:g} free CPUs; {workers} workers of {threads} threads need "
            f"{workers * threads}",
            hint="set resources.workers lower, or wait until the other job is done",
        )


def _start_ray(cpus: int) -> None:
    try:
        ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            logging_level="ERROR",
        )
    except (OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise WorkerError(
            f"Ray could not be started: {error}", hint="--backend serial needs no Ray"
        ) from error
