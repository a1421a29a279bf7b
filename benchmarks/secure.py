"""What secure aggregation costs: a client's masks, and whole sessions in one process, with clients lost.

Clients give a vector that is there already, so that nothing is measured but the protocol. Beside each session
stands the same exchange in clear: every client sends its vector, and the server adds them up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks import results
from shoal.clients.app import register, secure_handlers
from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure import SecureClient
from shoal.clients.worker import WorkerContext
from shoal.common.config.file import load_scenario
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages import table
from shoal.common.messages.names import CONFIG
from shoal.common.messages.requests import SecureVectorRequest
from shoal.common.secure import graph
from shoal.common.secure.fixed_point import FixedPoint
from shoal.common.secure.masks import Mask, add_masks
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.server.cohort_grid import CohortGrid
from shoal.server.secure.protocol import Task, secure_sum
from shoal.simulations import datasets
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor

_MB: Final = 1_000_000
_SETTINGS: Final = ("secure.aggregation=true", "resources.backend=serial")


@dataclass(frozen=True, slots=True)
class Case:
    """A session: clients, of whom some are lost after they have given shares, and numbers of each."""

    clients: int
    lost: int
    numbers: int


class _Losing(CohortGrid):
    """Loses the masked inputs of the first clients."""

    lost: int

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        if asked[0].metadata.message_type != table.SECURE_VECTOR.name:
            return replies
        return [reply for reply in replies if reply.metadata.src_node_id - 2 >= self.lost]


def main(*, quick: bool) -> None:
    """Measure masks and sessions and write the table."""
    size = _MB // 40 if quick else _MB // 4
    cases = [Case(10, 0, size), Case(100, 0, size), Case(100, 10, size)]
    rows: list[list[object]] = []
    data: dict[str, Any] = {"masks": {}, "sessions": []}
    for clients in (10, 100, 1000):
        neighbours = graph.choose(clients, 0.3, 0.3).neighbours
        found = masks(neighbours, 10 * size, 2 if quick else 5)
        data["masks"][clients] = found
        what = f"masks of a client, 10 MB, one of {clients:,}"
        rows.append([what, neighbours + 1, median(found["seconds"]), median(found["cpu"]), "–", "–"])
    for case in cases:
        found = session(case, 1 if quick else 3)
        data["sessions"].append({"clients": case.clients, "lost": case.lost, **found})
        seconds, clear = median(found["seconds"]), median(found["clear"])
        what = f"session of {case.clients} clients, 1 MB each, {case.lost} lost"
        cells = [seconds, median(found["cpu"]), median(found["clients"]), seconds / clear]
        rows.append([what, found["neighbours"] + 1, *cells])
    results.save(
        "secure",
        "Secure aggregation: masks, and whole sessions",
        ["what", "masks a client", "seconds", "CPU", "of which a client", "× the exchange in clear"],
        rows,
        notes=[
            "All clients of a session and the server share one process and one core, serial backend; a 1 MB "
            "model has 250,000 numbers. Seconds are medians, of the clock and of the processor, which differ "
            "where others share the machine; those of a client are the mean over the cohort, "
            "of all its stages. secure.max_dropout and secure.max_colluding are 0.3. The exchange in clear "
            "is measured in turn with the sessions: every client sends float32, and the server adds up.",
        ],
        data=data,
    )


def masks(neighbours: int, numbers: int, times: int) -> dict[str, list[float]]:
    """Return seconds in which a client's own mask and those of its neighbours are added, each time."""
    vector, keys = np.zeros(numbers, np.uint32), [os.urandom(32) for _ in range(neighbours + 1)]
    found: dict[str, list[float]] = {"seconds": [], "cpu": []}
    for _ in range(times):
        started, used = time.perf_counter(), time.process_time()
        add_masks(vector, [Mask(key) for key in keys])
        found["seconds"].append(time.perf_counter() - started)
        found["cpu"].append(time.process_time() - used)
    return found


def session(case: Case, times: int) -> dict[str, Any]:
    """Run a session several times, each checked, and the same exchange in clear in turn with it.

    Returns:
        Seconds of each session, by clock and processor, of a client in it, and of each exchange in clear;
        neighbours of a client.
    """
    identify_process(1)
    settings = [
        *_SETTINGS,
        f"partition.clients={case.clients}",
        "partition.scheme=iid",
        "partition.min_rows=2",
    ]
    scenario = load_scenario("digits", settings)
    runtime = ClientRuntime(scenario, datasets.load_population(scenario))
    rng = np.random.default_rng(1)
    vectors = rng.uniform(-1, 1, (case.clients, case.numbers)).astype(np.float32)

    fixed = FixedPoint.for_sum(case.clients, 1.0)

    def given(runtime: ClientRuntime, client: int, request: SecureVectorRequest, clients: int) -> np.ndarray:
        return fixed.encode(vectors[client])

    content = RecordDict({CONFIG: ConfigRecord({"pass": "numbers"})})
    task = Task(table.SECURE_VECTOR.name, content, case.numbers, "statistics", "a given vector")
    app = ClientApp()
    register(app, secure_handlers(SecureClient(runtime, vector=given)))

    @app.train()
    def clear(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        told = {"arrays": weights_to_record([vectors[client]]), "metrics": MetricRecord({"n": 1})}
        return Message(RecordDict(told), reply_to=message)

    sites = Sites(case.clients, str)
    executor = SerialExecutor(lambda: app, WorkerContext(1, {}, case.clients, show_errors=True))
    grid = _Losing(EngineGrid(executor, sites, make_run(1)), sites.node_ids)
    grid.lost = case.lost
    found: dict[str, Any] = {"seconds": [], "cpu": [], "clients": [], "clear": []}
    for _ in range(times):
        started, used = time.perf_counter(), time.process_time()
        summed = secure_sum(grid, sites, scenario, range(case.clients), 0, task)
        total = fixed.decode(summed.total)
        found["seconds"].append(time.perf_counter() - started)
        found["cpu"].append(time.process_time() - used)
        found["clients"].append(float(np.mean([row.seconds for row in summed.exchange.rows])))
        assert summed.dropped == list(range(case.lost))
        assert np.abs(total - vectors[case.lost :].sum(axis=0, dtype=np.float64)).max() < 1e-4
        found["clear"].append(_in_clear(grid, sites.node_ids, case.numbers))
    secure = scenario.secure
    found["neighbours"] = graph.choose(case.clients, secure.max_dropout, secure.max_colluding).neighbours
    return found


def _in_clear(grid: CohortGrid, nodes: Sequence[int], numbers: int) -> float:
    started = time.perf_counter()
    content = RecordDict({"config": ConfigRecord({})})
    total = np.zeros(numbers)
    for reply in grid.send_and_receive([Message(content, node, table.TRAIN.name) for node in nodes]):
        total += record_to_weights(reply.content.array_records["arrays"])[0]
    return time.perf_counter() - started
