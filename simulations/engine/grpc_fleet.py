"""A simulation over the real network protocol: clients in Ray actors that connect with mutual TLS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import grpc
import ray
from flwr.app import RecordDict

from shoal.clients.pilot.grpc_client import TransportClient
from shoal.clients.pilot.states import StatefulWorker
from shoal.clients.worker import Answer, AppFactory, Job, Runs, Worker, WorkerContext
from shoal.common.certificates import issue, make_authority, server_credentials
from shoal.common.config import ResourcesConfig
from shoal.common.errors import WorkerError
from shoal.common.flower_shim import make_run
from shoal.common.sites import Sites
from shoal.server.pilot.grid import TransportGrid
from shoal.server.pilot.grpc_server import Policy, TransportServer
from shoal.simulations.engine.client_states import ClientStateFolder
from shoal.simulations.engine.cluster import ray_session
from shoal.simulations.engine.starting import LOOK_S, refuse_stuck

_SERVER: Final = "server"
_START_S: Final = 300.0  # until all clients are connected, including TensorFlow's import


class _Actor:
    """Several clients in one process: one connection each, and one worker that serves them in turn."""

    def __init__(
        self,
        make_app: AppFactory,
        federation: WorkerContext,
        address: str,
        compression: Literal["none", "zstd"],
        keeps: ClientStateFolder | None,
    ) -> None:
        self._worker = Worker(make_app, federation)
        self._keeps = keeps
        self._turn = threading.Lock()
        self._address = address
        self._compression = compression
        self._failures: list[str] = []

    def run(self, clients: Mapping[str, tuple[bytes, bytes, bytes]]) -> list[str]:
        """Run clients until the server ends the session; return why any of them ended early.

        Args:
            clients: name → certificate authority, key and certificate, in PEM.
        """
        threads = [threading.Thread(target=self._client, args=(*item,)) for item in clients.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._failures

    def _client(self, name: str, pem: tuple[bytes, bytes, bytes]) -> None:
        states = None if self._keeps is None else self._keeps.states(name)
        worker: Runs = self._worker if states is None else StatefulWorker(self._worker, states)
        try:
            TransportClient(
                self._address,
                grpc.ssl_channel_credentials(*pem),
                lambda welcome: _InTurn(worker, self._turn),
                version=version("shoal"),
                compression=self._compression,
            ).run()
        except Exception as error:
            self._failures.append(f"{name}: {type(error).__name__}: {error}")
        finally:
            if states is not None:
                states.close()


class _InTurn:
    """Lets the clients of a process take turns with its worker."""

    def __init__(self, worker: Runs, turn: threading.Lock) -> None:
        self._worker = worker
        self._turn = turn

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        with self._turn:
            return self._worker.run(content, jobs)


@contextmanager
def over_grpc(
    make_app: AppFactory,
    federation: WorkerContext,
    resources: ResourcesConfig,
    sites: Sites,
    *,
    pooled: bool,
    keeps: ClientStateFolder | None = None,
) -> Iterator[TransportGrid]:
    """Start a server and all clients, and yield the Grid over them; they end with it.

    Args:
        make_app: makes the ClientApp, once per actor; federation: passed to it.
        resources: workers and threads; sites: the clients.
        pooled: whether there is one more node, with the rows of all clients.
        keeps: where each client keeps its algorithm state; `None` if it has none.

    Raises:
        WorkerError: not all clients connected.
    """
    names = [f"client-{index}" for index in range(sites.count + pooled)]
    with ray_session(resources, len(names)) as session:
        credentials, pems = _certificates(names, session.host)
        server = TransportServer(f"{session.host}:0", credentials, Policy(names), version("shoal"))
        actors: list[Any] = []
        try:
            factory = ray.put(make_app)
            remote = ray.remote(_Actor).options(
                num_cpus=resources.threads_per_worker,
                max_restarts=0,
                runtime_env=session.runtime_env,
            )
            address = f"{session.host}:{server.port}"
            actors = [
                remote.remote(factory, federation, address, resources.compression, keeps)
                for _ in range(session.workers)
            ]
            ended = [
                actor.run.remote({name: pems[name] for name in names[number :: session.workers]})
                for number, actor in enumerate(actors)
            ]
            _wait(server, len(names), ended)
            yield TransportGrid(server, sites, make_run(federation.run_id), resources.compression)
        finally:
            server.close()
            for actor in actors:
                ray.kill(actor)


def _certificates(
    names: Sequence[str], host: str
) -> tuple[grpc.ServerCredentials, dict[str, tuple[bytes, bytes, bytes]]]:
    """Return the server's credentials, and each client's authority, key and certificate."""
    with TemporaryDirectory(prefix="shoal-") as folder:
        path = Path(folder)
        make_authority(path, "shoal simulation")
        issue(path, _SERVER, hosts=[host])
        for name in names:
            issue(path, name)
        credentials = server_credentials(path / "ca.crt", path / f"{_SERVER}.crt", path / f"{_SERVER}.key")
        return credentials, {name: _pem(path, name) for name in names}


def _wait(server: TransportServer, clients: int, ended: Sequence[Any]) -> None:
    begun, there = time.monotonic(), server.wait_for(clients, LOOK_S)
    while len(there) < clients and (waited := time.monotonic() - begun) < _START_S:
        if not there:
            refuse_stuck(waited)
        there = server.wait_for(clients, LOOK_S)
    if len(there) < clients:
        done, _ = ray.wait(list(ended), num_returns=len(ended), timeout=0)
        reasons = "; ".join(reason for ref in done for reason in ray.get(ref)[:1])
        raise WorkerError(f"{len(there)} of {clients} clients connected within {_START_S:g} s. {reasons}")


def _pem(folder: Path, name: str) -> tuple[bytes, bytes, bytes]:
    files = (folder / "ca.crt", folder / f"{name}.key", folder / f"{name}.crt")
    ca, key, certificate = (file.read_bytes() for file in files)
    return ca, key, certificate
