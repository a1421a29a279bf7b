"""`Engine`: workers that outlive a run, for sweeps and notebooks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Literal

from shoal.clients.worker import AppFactory, WorkerContext
from shoal.common.config import ResourcesConfig, Scenario
from shoal.common.errors import RunError, WorkerError
from shoal.simulations.engine.executors import KeptExecutor, make_executor

_log = logging.getLogger("shoal.engine")

# The keys that determine the workers; the rest of [resources] may differ from run to run.
_OF_WORKERS: Final = {
    "backend", "ray_address", "workers", "threads_per_worker", "gpus_per_worker", "worker_memory_mb",
}  # fmt: skip


class Engine:
    """Keeps the workers of a run for the next one.

    A first run starts Ray and a process for each worker, each of which imports TensorFlow, builds the model
    and traces it, which takes many seconds. The next run on the same engine reuses all of that, including the
    model if it is the same (name and arguments, input, optimizer, loss, strategy and privacy). Results are
    bit-identical to runs without an engine.

    If a run needs other workers, the existing ones are ended and new ones started. A run that
    fails leaves the engine usable. Runs over gRPC (resources.transport) start their own clients.

    Use it in a `with` statement, or call `close`. An engine runs one run at a time.
    """

    def __init__(
        self, *, backend: Literal["ray", "serial"] | None = None, workers: int | None = None
    ) -> None:
        """Set up an engine; nothing is started before the first run.

        Args:
            backend: "ray" or "serial" for all runs, overriding their scenarios; `None` for the scenarios'
                own.
            workers: Ray workers for all runs, 0 for one per core; `None` for the scenarios' own.
        """
        given = {"backend": backend, "workers": workers}
        self._given: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        self._executor: KeptExecutor | None = None
        self._workers: dict[str, Any] = {}
        self._busy = self._closed = False

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._busy else "idle"
        kept = f", keeps {self._workers['backend']} workers" if self._executor is not None else ""
        return f"<Engine {state}{kept}>"

    def close(self) -> None:
        """End the workers, and Ray if the engine started it; repeated calls have no effect."""
        self._closed = True
        self.release()

    def release(self) -> None:
        """End the workers; the next run starts new ones."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()

    def adapted(self, scenario: Scenario) -> Scenario:
        """Return the scenario with the engine's backend and workers."""
        if not self._given:
            return scenario
        resources = scenario.resources.model_copy(update=self._given)
        return scenario.model_copy(update={"resources": resources})

    @contextmanager
    def executor(
        self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig
    ) -> Iterator[KeptExecutor]:
        """Yield workers for a run: the existing ones if they fit, or new ones.

        Args:
            make_app: makes the ClientApp, once per worker; federation: passed to the app.
            resources: of the run.

        Raises:
            RunError: the engine is closed, or another run is using it.
            WorkerError: workers cannot be started.
        """
        if self._closed or self._busy:
            what = "is closed" if self._closed else "is in use by another run"
            raise RunError(f"the engine {what}", hint="create another one: with shoal.Engine() as engine: …")
        self._busy = True
        try:
            yield self._ready(make_app, federation, resources)
        except WorkerError:
            self.release()  # workers, or Ray itself, may have died
            raise
        finally:
            self._busy = False

    def _ready(
        self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig
    ) -> KeptExecutor:
        wanted = resources.model_dump(include=_OF_WORKERS)
        kept = self._executor
        if kept is not None and wanted == self._workers and kept.fits(federation.clients):
            try:
                kept.serve(make_app, federation, resources)
            except Exception as error:  # Ray may have died in the meantime, in any way
                _log.warning("the engine restarts its workers: %s: %s", type(error).__name__, error)
            else:
                return kept
        self.release()
        self._executor, self._workers = make_executor(make_app, federation, resources), wanted
        return self._executor
