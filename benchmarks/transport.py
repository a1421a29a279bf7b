"""What a round costs beyond training when clients are elsewhere: gRPC with mutual TLS, on loopback.

Ten runtime clients get a model and send one back; none trains. Beside it the same with Flower's own
deployment (SuperLink and SuperNodes, TLS, node authentication), whose SuperNodes start a process for each
message.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from benchmarks import results
from benchmarks.children import ROOT
from benchmarks.superlink import SuperLink
from shoal.common.certificates import issue, make_authority, server_credentials
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.sites import Sites
from shoal.common.weights import weights_to_record
from shoal.server.pilot.grid import TransportGrid
from shoal.server.pilot.grpc_server import Policy, TransportServer

_CLIENTS: Final = 10
_PROCESSES: Final = 2
_MB: Final = 1_000_000

_APP: Final = """
import json, time
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@client.train()
def train(message, context):
    weights = ArrayRecord([w + 1 for w in message.content["arrays"].to_numpy_ndarrays()])
    told = {"arrays": weights, "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(told), reply_to=message)

@server.main()
def main(grid, context):
    while len(list(grid.get_node_ids())) < context.run_config["nodes"]:
        time.sleep(0.5)
    weights, seconds = [np.zeros(context.run_config["numbers"], np.float32)], []
    for number in range(context.run_config["rounds"]):
        started = time.perf_counter()
        content = RecordDict({"arrays": ArrayRecord(weights), "config": ConfigRecord({"round": number})})
        replies = grid.send_and_receive([Message(content, n, "train") for n in grid.get_node_ids()])
        found = [r.content["arrays"].to_numpy_ndarrays()[0] for r in replies if r.has_content()]
        assert len(found) == context.run_config["nodes"]
        weights = [np.mean(found, axis=0, dtype=np.float32)]
        seconds.append(time.perf_counter() - started)
    with open(context.run_config["result"], "w") as stream:
        json.dump({"seconds": seconds, "last": float(weights[0][0])}, stream)
"""
_PROJECT: Final = """
[project]
name = "echo"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "shoal"
[tool.flwr.app.components]
serverapp = "echo:server"
clientapp = "echo:client"
[tool.flwr.app.config]
nodes = 0
numbers = 0
rounds = 0
result = ""
"""


def main(*, quick: bool) -> None:
    """Measure both and write the table."""
    rounds = 3 if quick else 40
    ours = {size: shoal(size * _MB // 4, rounds) for size in ((1,) if quick else (1, 10))}
    stock = flower(_MB // 4, 2 if quick else 4)
    rows: list[list[object]] = [
        [f"shoal, {size} MB", 1e3 * median(found["seconds"]), found["rate"]] for size, found in ours.items()
    ]
    rows.append(["Flower's deployment, 1 MB", 1e3 * median(stock["seconds"][1:]), "–"])
    times = median(stock["seconds"][1:]) / median(ours[1]["seconds"])
    results.save(
        "transport",
        f"A round of {_CLIENTS} clients that do not train, over TLS on loopback",
        ["side, size of the model", "ms a round", "MB a second of the server's CPU"],
        rows,
        notes=[
            f"The model goes to {_CLIENTS} runtime clients in {_PROCESSES} processes on the server's cores, "
            f"and back; median of {rounds} rounds. Flower's deployment takes {times:,.0f} times as long: a "
            "SuperNode starts a process for each message.",
        ],
        data={"shoal": ours, "flower": stock},
    )


def shoal(numbers: int, rounds: int) -> dict[str, Any]:
    """Return seconds of each round, and megabytes both ways a second of the server's CPU time."""
    identify_process(1)
    names = [f"client-{k}" for k in range(_CLIENTS)]
    with TemporaryDirectory(prefix="shoal-") as folder:
        keys = Path(folder)
        make_authority(keys)
        issue(keys, "server", hosts=["127.0.0.1"])
        for name in names:
            issue(keys, name)
        credentials = server_credentials(keys / "ca.crt", keys / "server.crt", keys / "server.key")
        server = TransportServer("127.0.0.1:0", credentials, Policy(names), "benchmark")
        sides = [
            _start({"keys": folder, "address": f"127.0.0.1:{server.port}", "names": names[k::_PROCESSES]})
            for k in range(_PROCESSES)
        ]
        try:
            if len(server.wait_for(_CLIENTS, 60)) < _CLIENTS:
                raise RuntimeError("not all clients came")
            sites = Sites(_CLIENTS, str)
            grid = TransportGrid(server, sites, make_run(1))
            weights, seconds, used = np.zeros(numbers, np.float32), list[float](), 0.0
            for number in range(rounds + 2):
                if number == 2:  # the first two warm up
                    seconds, used = [], time.process_time()
                started = time.perf_counter()
                content = RecordDict(
                    {"arrays": weights_to_record([weights]), "config": ConfigRecord({"round": number})}
                )
                asked = [Message(content, node, "train") for node in sites.node_ids]
                replies = grid.send_and_receive(asked, timeout=60)
                found = [r.content.array_records["arrays"].to_numpy_ndarrays()[0] for r in replies]
                assert len(found) == _CLIENTS
                weights = np.mean(found, axis=0, dtype=np.float32)
                seconds.append(time.perf_counter() - started)
            used = time.process_time() - used
            assert weights[0] == rounds + 2
        finally:
            server.close()
            for side in sides:
                side.wait(30)
    return {"seconds": seconds, "rate": 2 * _CLIENTS * rounds * 4 * numbers / _MB / used}


def flower(numbers: int, rounds: int) -> dict[str, Any]:
    """Return seconds of each round under Flower's own deployment."""
    with TemporaryDirectory(prefix="shoal-") as name:
        folder, app = Path(name), Path(name) / "app"
        app.mkdir()
        (app / "echo.py").write_text(_APP)
        (app / "pyproject.toml").write_text(_PROJECT)
        result = folder / "result.json"
        link = SuperLink(folder)
        try:
            link.up({f"node-{k}": f"partition-id={k}" for k in range(_CLIENTS)})
            given = f'nodes={_CLIENTS} numbers={numbers} rounds={rounds} result="{result}"'
            said = link.run(app, given)
        finally:
            link.close()
        if not result.exists():
            raise RuntimeError(f"Flower's deployment gave nothing:\n{said[-2000:]}")
        found: dict[str, Any] = json.loads(result.read_text())
        assert found["last"] == rounds
        return found


def _start(given: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.transport_side", json.dumps(given)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
