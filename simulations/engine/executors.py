"""Makes a scenario's executor."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from shoal.clients.worker import AppFactory, WorkerContext
from shoal.common.config import ResourcesConfig
from shoal.common.environment import worker_environment
from shoal.simulations.engine.grid import Executor
from shoal.simulations.engine.serial import SerialExecutor


class KeptExecutor(Executor, Protocol):
    """An executor that serves several runs in turn."""

    def fits(self, clients: int) -> bool:
        """Return whether it has as many workers as a new one for this number of clients."""
        ...

    def serve(self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig) -> None:
        """Begin another run; the previous one may have ended in any way.

        Args:
            make_app: makes the ClientApp, once per worker; federation: passed to the app.
            resources: equal to those at the start in every key that determines the workers.
        """
        ...


def make_executor(
    make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig
) -> KeptExecutor:
    """Return the executor named by `resources.backend`.

    Args:
        make_app: makes the ClientApp, once per process; must pickle for Ray.
        federation: passed to the app.
        resources: backend, workers and threads.
    """
    if resources.backend == "serial":
        if "tensorflow" not in sys.modules:  # it reads the variables once, on import
            os.environ.update(worker_environment(resources.threads_per_worker))
        return SerialExecutor(make_app, federation)
    from shoal.simulations.engine.ray_pool import RayExecutor  # Ray takes a second to import

    return RayExecutor(make_app, federation, resources)
