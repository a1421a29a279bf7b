"""Makes the executor that a scenario asks for."""

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
    """An executor that serves one run after another."""

    def fits(self, clients: int) -> bool:
        """Tell whether it has as many workers as one would that is started for so many clients."""
        ...

    def serve(self, make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig) -> None:
        """Begin another run; the one before may have ended in any way.

        Args:
            make_app: makes the ClientApp, once a worker; federation: what the app is told.
            resources: as they were at the start in all that decides which workers there are.
        """
        ...


def make_executor(
    make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig
) -> KeptExecutor:
    """Return the executor named by `resources.backend`.

    Args:
        make_app: makes the ClientApp, once a process; must pickle for Ray.
        federation: what the app is told.
        resources: backend, workers and threads.
    """
    if resources.backend == "serial":
        if "tensorflow" not in sys.modules:  # it reads the variables once, when it is imported
            os.environ.update(worker_environment(resources.threads_per_worker))
        return SerialExecutor(make_app, federation)
    from shoal.simulations.engine.ray_pool import RayExecutor  # Ray takes a second to import

    return RayExecutor(make_app, federation, resources)
