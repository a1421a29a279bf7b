"""The Ray instance that workers run in: our own on this machine, or an existing cluster."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray._private import ray_constants

from shoal.common.config import ResourcesConfig
from shoal.common.environment import QUIET, SEARCHED, worker_environment
from shoal.common.errors import WorkerError
from shoal.common.memory import memory_bytes

_LEAST_MEMORY = 1 << 30  # bytes of a worker: TensorFlow alone takes two thirds of it
_CONNECT_S = 10.0
_ARRIVAL_S = 30.0
_PACKAGE = "shoal"


@dataclass(frozen=True, slots=True)
class Room:
    """The resources available to all workers together.

    Attributes:
        cores: free cores; memory: in bytes; gpus: number of GPUs.
    """

    cores: int
    memory: int
    gpus: float = 0.0

    @classmethod
    def here(cls) -> Room:
        """Return the resources of this machine, without Ray."""
        affinity = getattr(os, "sched_getaffinity", None)  # Linux only
        return cls(len(affinity(0)) if affinity else os.cpu_count() or 1, memory_bytes())

    @classmethod
    def of_cluster(cls) -> Room:
        """Return the resources of the cluster that we have joined, over all nodes."""
        total = ray.cluster_resources()
        return cls(_free_cpus(), int(total.get("memory", 0.0)), total.get("GPU", 0.0))


def worker_count(resources: ResourcesConfig, clients: int, room: Room) -> int:
    """Return how many workers to start: the requested number, or what cores, memory and GPUs allow.

    There are never more than clients. Unless requested otherwise, each worker has a core for each of its
    threads and enough memory for TensorFlow.

    Raises:
        WorkerError: GPUs are requested and there are too few.
    """
    fit = min(room.cores // resources.threads_per_worker, room.memory // _LEAST_MEMORY)
    wanted = resources.workers or max(1, fit)
    if resources.gpus_per_worker:
        fit = int(room.gpus / resources.gpus_per_worker)
        if not fit or resources.workers > fit:
            raise WorkerError(
                f"{resources.workers or 'the'} workers need {resources.gpus_per_worker:g} GPUs each, "
                f"Ray sees {room.gpus:g}",
                hint="lower resources.workers or resources.gpus_per_worker; 0 trains on the CPU",
            )
        wanted = min(wanted, fit)
    return max(1, min(wanted, clients))


@dataclass(frozen=True, slots=True)
class RaySession:
    """A running Ray instance.

    Attributes:
        workers: number to start; most_workers: the same for an unlimited number of clients.
        memory: bytes available to all workers together.
        runtime_env: Ray's settings of their processes, with their environment variables.
        host: address at which workers reach this process.
    """

    workers: int
    most_workers: int
    memory: int
    runtime_env: dict[str, Any]
    host: str = "127.0.0.1"


@contextmanager
def ray_session(resources: ResourcesConfig, clients: int) -> Iterator[RaySession]:
    """Start Ray on this machine, or join the cluster at `resources.ray_address`; leave it at the end.

    A Ray instance that this process has already joined is used as it is, and left running.

    Raises:
        WorkerError: Ray is not available, or has too few resources.
    """
    environment = worker_environment(resources.threads_per_worker) | {SEARCHED: str(Path.cwd())}
    runtime_env: dict[str, Any] = {"env_vars": environment}
    host, owns = "127.0.0.1", not ray.is_initialized()
    if owns and resources.ray_address:
        _join(resources.ray_address)
        host = ray.util.get_node_ip_address()
        del environment[SEARCHED]  # of this machine; the others have the files sent by `_stage`
        _wait_for_cpus(max(1, resources.workers) * resources.threads_per_worker)
    elif owns:
        without = resources.model_copy(update={"gpus_per_worker": 0.0})
        _start(worker_count(without, clients, Room.here()) * resources.threads_per_worker)
    if not resources.ray_address:
        # Ray writes the path into a shell command unquoted (2.55), so one with a space would be cut.
        runtime_env["py_executable"] = shlex.quote(sys.executable)
    try:
        there = Room.of_cluster()
        if resources.ray_address:
            room = there
        else:
            own = Room.here()
            room = Room(own.cores, own.memory, there.gpus)
        count = worker_count(resources, clients, room)
        _check_room(count, resources.threads_per_worker, there.cores)
        # Ray's own share of a cluster's memory is already subtracted; this machine's is not.
        memory = room.memory if resources.ray_address else room.memory * 4 // 5
        yield RaySession(count, worker_count(resources, sys.maxsize, room), memory, runtime_env, host)
    finally:
        if owns:
            ray.shutdown()


def _init(**options: Any) -> None:
    """Call `ray.init` quietly, and keep our SIGTERM handler: Ray's would end us without a checkpoint."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, configure_logging=False, logging_level="ERROR", **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _start(cpus: int) -> None:
    _require_loopback()
    try:
        with _on_loopback():
            _init(address="local", num_cpus=cpus, include_dashboard=False)  # ignores RAY_ADDRESS
    except Exception as error:  # Ray raises the base class where one of its processes does not start
        raise WorkerError(
            f"Ray could not be started: {error}", hint="--backend serial needs no Ray"
        ) from error


def _require_loopback() -> None:
    """Raise instead of waiting for minutes, as Ray does, on a machine without any network interface."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=_CONNECT_S).close()
    except OSError as error:
        raise WorkerError(
            f"processes of this machine cannot reach each other at 127.0.0.1: {error.strerror}",
            hint="bring the interface up (ip link set lo up); --backend serial needs none",
        ) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started listen at 127.0.0.1 only, as on macOS and Windows; Linux has it everywhere.

    Whoever reaches its ports can run code in its workers. Ray's processes read the variable; this one has
    read it already.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    given = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if given is None:
            del os.environ[name]
        else:
            os.environ[name] = given


def _join(address: str) -> None:
    os.environ.update(QUIET)
    with TemporaryDirectory(prefix="shoal-") as folder:
        _stage(Path(folder))
        try:
            if address != "auto":  # Ray would retry for many minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
            _init(address=address, runtime_env={"working_dir": folder})
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            raise WorkerError(
                f'no Ray cluster at "{address}": {error}',
                hint="start one with `ray start --head`, with the same versions of Ray and Python; without "
                "resources.ray_address, shoal starts its own on this machine",
            ) from error


def _wait_for_cpus(cpus: int) -> None:
    """Wait for nodes that were started together with this process."""
    end = time.monotonic() + _ARRIVAL_S
    while _free_cpus() < cpus and time.monotonic() < end:
        time.sleep(0.2)


def _stage(folder: Path) -> None:
    """Copy the code that workers import: shoal, and the user's modules that this process has imported.

    The user's modules are those below the working directory, where package.module:function is looked up. Data
    files next to them are not sent.
    """
    source = Path(str(importlib.import_module(_PACKAGE).__file__)).parent
    shutil.copytree(source, folder / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))  # follows links
    here = Path.cwd()
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        own = file.suffix == ".py" and file.is_relative_to(here) and not file.is_relative_to(sys.prefix)
        if own and name != "__main__" and name.partition(".")[0] != _PACKAGE:
            path = PurePath(*name.split("."))
            target = folder / (path / file.name if file.name == "__init__.py" else path.with_suffix(".py"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _check_room(workers: int, threads: int, free: int) -> None:
    """Raise instead of waiting forever for workers that do not fit into a running Ray."""
    if free < workers * threads:
        raise WorkerError(
            f"the running Ray has {free:g} free CPUs; {workers} workers of {threads} threads need "
            f"{workers * threads}",
            hint="set resources.workers lower, or wait until the other job has ended",
        )


def _free_cpus() -> int:
    return int(ray.available_resources().get("CPU", 0.0))
