"""Makes the executor that a scenario asks for."""

from __future__ import annotations

import os
import sys

from shoal.clients.worker import AppFactory, WorkerContext
from shoal.common.config import ResourcesConfig
from shoal.common.environment import worker_environment
from shoal.simulations.engine.grid import Executor
from shoal.simulations.engine.serial import SerialExecutor


def make_executor(make_app: AppFactory, federation: WorkerContext, resources: ResourcesConfig) -> Executor:
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
