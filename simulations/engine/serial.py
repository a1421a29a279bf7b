"""Runs clients one after another in this process: for debugging, and as the reference for other backends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shoal.clients.state import StateBatch
from shoal.clients.worker import Answer, AppFactory, Job, WorkerContext
from shoal.common.config import ResourcesConfig
from shoal.simulations.engine.chunks import Chunk
from shoal.simulations.engine.placement import NodeLoad
from shoal.simulations.engine.run_worker import RunWorker


class SerialExecutor:
    """One worker in this process."""

    def __init__(self, make_app: AppFactory, federation: WorkerContext) -> None:
        self._worker = RunWorker(make_app, federation)

    def fits(self, clients: int) -> bool:
        """Return true: one worker serves any number of clients."""
        return True

    def serve(self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig) -> None:
        """Begin another run; see `KeptExecutor.serve`."""
        self._worker.serve(make_app, federation)

    def execute(
        self,
        chunks: Sequence[Chunk],
        jobs: Sequence[Sequence[Job]],
        states: Sequence[StateBatch | None],
        timeout_s: float | None,
    ) -> list[list[Answer] | None]:
        """Run the chunks in order; chunks that would start after the deadline are not run."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answers: list[list[Answer] | None] = []
        for chunk, chunk_jobs, known in zip(chunks, jobs, states, strict=True):
            late = deadline is not None and time.monotonic() > deadline
            answers.append(None if late else self._worker.run(chunk.content, chunk_jobs, known))
        return answers

    def placement(self) -> list[NodeLoad]:
        """Return an empty list: there are no nodes."""
        return []

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
