"""Runs clients for several runs in turn, and keeps a compiled model for the next one."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import RecordDict

from shoal.clients.app import RuntimeClientApp
from shoal.clients.state import StateBatch
from shoal.clients.worker import Answer, AppFactory, Finished, Job, Worker, WorkerContext
from shoal.simulations.baselines import PooledRuntime


class RunWorker:
    """One `Worker` per run, in this process or as a Ray actor."""

    def __init__(self, make_app: AppFactory, federation: WorkerContext) -> None:
        self._worker = Worker(make_app, federation)

    def serve(self, make_app: AppFactory, federation: WorkerContext) -> None:
        """Begin another run after the previous one has ended.

        Args:
            make_app: makes the ClientApp; federation: passed to the app.
        """
        before, self._worker = self._worker, Worker(make_app, federation)
        old, new = before.app, self._worker.app
        if isinstance(old, RuntimeClientApp) and isinstance(new, RuntimeClientApp):
            earlier, runtime = old.runtime, new.runtime
            if isinstance(earlier, PooledRuntime) and isinstance(runtime, PooledRuntime):
                runtime.adopt(earlier)

    def run(self, content: RecordDict, jobs: Sequence[Job], states: StateBatch | None) -> list[Answer]:
        """Run the app for all jobs; see `Worker.run`."""
        return self._worker.run(content, jobs, states)

    def run_measured(self, content: RecordDict, jobs: Sequence[Job], states: StateBatch | None) -> Finished:
        """Run as `run` does, and measure time and memory."""
        return self._worker.run_measured(content, jobs, states)
