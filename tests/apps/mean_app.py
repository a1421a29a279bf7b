"""A Flower app as a stranger would write it; the engine's tests run it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Add the partition's index to every weight; misbehave where the request asks for it."""
    partition = int(context.node_config["partition-id"])
    config = message.content.config_records["config"]
    misbehave(dict(config), partition)
    seen = context.state.get("seen", MetricRecord({"n": 0}))["n"] + 1
    context.state["seen"] = MetricRecord({"n": seen})
    weights = [w + np.float32(partition) for w in message.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": partition + 1, "seen": seen, "pid": os.getpid()})
    return Message(RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Report the mean of the weights."""
    mean = float(np.mean(message.content["arrays"].to_numpy_ndarrays()[0]))
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "mean": mean})}), reply_to=message)


def misbehave(config: dict[str, object], partition: int) -> None:
    """Raise, die once, die always or hang, in the partition that the request names."""
    if config.get("raise") == partition:
        raise ValueError("secret row 42")
    if config.get("die-once") == partition and not Path(str(config["marker"])).exists():
        Path(str(config["marker"])).touch()
        os._exit(1)
    if config.get("die") == partition:
        os._exit(1)
    if config.get("hang") == partition:
        time.sleep(600)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run stock FedAvg and leave its result in a file."""
    rounds = int(context.run_config.get("num-server-rounds", 2))
    result = FedAvg(fraction_train=1.0, fraction_evaluate=1.0).start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros((3, 2), np.float32), np.zeros(2, np.float32)]),
        num_rounds=rounds,
        train_config=ConfigRecord({}),
    )
    np.savez(str(context.run_config.get("out", "out.npz")), *result.arrays.to_numpy_ndarrays())
