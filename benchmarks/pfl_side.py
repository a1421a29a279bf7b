"""pfl-research's side: FederatedAveraging over a SimulatedBackend with its TFModel, on Keras 2.

Runs in an environment of its own (`benchmarks/peers.py`), as a program that takes a JSON object of the
arguments of `run`. pfl knows variables by name, which are unique in Keras 2 only: hence tf_keras.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # read when TensorFlow is imported, below

from benchmarks.arrays import BATCH, Arrays
from benchmarks.children import answer

_RANK = "PFL_WORKER_RANK"


def run(
    task: str, rounds: int, data: str, cohort: int, learning_rate: float, workers: int = 1
) -> list[float]:
    """Return the seconds of each central iteration after the first.

    Args:
        task: name; rounds: to measure, after one to warm up.
        data: what `Arrays.write` wrote; cohort: clients in a round.
        learning_rate: of SGD; workers: processes, which share the cohort.
    """
    import tensorflow as tf
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.model.tensorflow import TFModel  # the first import: it starts the processes' connections

    from benchmarks.models import compiled

    arrays = Arrays.read(data)
    keras = tf.keras
    model = TFModel(compiled(task, keras, learning_rate), {}, keras.optimizers.SGD(1.0))
    model.keras_model.set_weights(arrays.weights)
    backend = SimulatedBackend(
        training_data=_users(task, arrays), val_data=None, postprocessors=[WeightByDatapoints()]
    )
    ends: list[float] = []
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds + 1,
            evaluation_frequency=rounds + 2,
            train_cohort_size=cohort,
            val_cohort_size=0,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=learning_rate
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[_clock(ends)],
    )
    return [later - end for end, later in itertools.pairwise(ends)]


def _clock(ends: list[float]) -> Any:
    """Return a callback that notes when each central iteration ends."""
    from pfl.callback.base import TrainingProcessCallback
    from pfl.metrics import Metrics

    class Clock(TrainingProcessCallback):
        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Any]:
            ends.append(time.perf_counter())
            return False, Metrics()

    return Clock()


def _users(task: str, arrays: Arrays) -> Any:
    """Return the clients as tensors in memory, drawn anew for each round."""
    import numpy as np
    import tensorflow as tf
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.tensorflow import TFTensorDataset

    def user(client: int) -> Any:
        x, y = arrays.client(client)
        return TFTensorDataset(tf.constant(x), tf.constant(y if task == "cnn" else arrays.column(client)))

    users = [user(client) for client in range(arrays.clients)]
    draw = np.random.default_rng(0)

    def drawn() -> int:
        return int(draw.integers(arrays.clients))

    return FederatedDataset(users.__getitem__, drawn)


def main(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run as told by a JSON object; of several workers the first starts the others."""
    workers = int(arguments.get("workers", 1))
    others: list[subprocess.Popen[bytes]] = []
    if workers > 1 and _RANK not in os.environ:
        os.environ["PFL_WORKER_ADDRESSES"] = ",".join(_addresses(workers))
        command = [sys.executable, "-m", "benchmarks.pfl_side", json.dumps(dict(arguments))]
        others = [
            subprocess.Popen(command, env={**os.environ, _RANK: str(rank)}) for rank in range(1, workers)
        ]
        os.environ[_RANK] = "0"
    try:
        return {"seconds": run(**arguments)}
    finally:
        for other in others:
            other.kill()  # TensorFlow's collective waits for a peer that ends, and would do so forever
            other.wait()


def _addresses(count: int) -> list[str]:
    """Return addresses on this machine whose ports are free now."""
    with_ports = [socket.create_server(("localhost", 0)) for _ in range(count)]
    found = [f"localhost:{server.getsockname()[1]}" for server in with_ports]
    for server in with_ports:
        server.close()
    return found


if __name__ == "__main__":
    answer(main)
    sys.stdout.flush()
    os._exit(0)  # without TensorFlow's goodbye to workers that have gone
