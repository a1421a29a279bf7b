"""FedJAX's side: its FedAvg over in-memory client data, one compiled step a batch.

Runs in an environment of its own (`benchmarks/peers.py`), as a program that takes a JSON object of the
arguments of `run`. Its step is compiled for each size of a last batch, which the first round pays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.arrays import BATCH, Arrays
from benchmarks.children import answer


def run(task: str, rounds: int, data: str, cohort: int, learning_rate: float) -> list[float]:
    """Return the seconds of each round after the first.

    Args:
        task: name; rounds: to measure, after one to warm up.
        data: what `Arrays.write` wrote; cohort: clients in a round.
        learning_rate: of SGD.
    """
    arrays = Arrays.read(data)
    network = hk.transform(_NETWORKS[task])
    loss = _classes if task == "cnn" else _binary

    def per_example_loss(params: Any, batch: Any, rng: Any) -> Any:
        return loss(network.apply(params, rng, batch["x"]), batch["y"])

    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.grad(per_example_loss),
        client_optimizer=fedjax.optimizers.sgd(learning_rate),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1),
    )
    state = algorithm.init(network.init(jax.random.PRNGKey(0), arrays.x[:1]))
    clients = [
        fedjax.ClientDataset(dict(zip("xy", arrays.client(k), strict=True))) for k in range(arrays.clients)
    ]
    draw = np.random.default_rng(0)
    seconds = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        keys = jax.random.split(jax.random.PRNGKey(number), cohort)
        chosen = draw.choice(len(clients), cohort, replace=False)
        state, _ = algorithm.apply(state, [(k, clients[k], key) for k, key in zip(chosen, keys, strict=True)])
        jax.block_until_ready(state.params)
        seconds.append(time.perf_counter() - started)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree_util.tree_leaves(state.params)):
        raise RuntimeError("FedJAX trained to weights that are not finite")
    return seconds[1:]


def _mlp(x: Any) -> Any:
    return hk.Sequential([hk.Linear(64), jax.nn.relu, hk.Linear(1)])(x)


def _cnn(x: Any) -> Any:
    for channels in (32, 64):
        x = jax.nn.relu(hk.Conv2D(channels, 5)(x))
        x = hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID")
    return hk.Linear(10)(jax.nn.relu(hk.Linear(512)(hk.Flatten()(x))))


def _lstm(x: Any) -> Any:
    embedded = hk.Embed(10_000, 32)(x)
    core = hk.LSTM(128)
    _, state = hk.dynamic_unroll(core, embedded.swapaxes(0, 1), core.initial_state(len(x)))
    return hk.Linear(1)(state.hidden)


def _binary(logits: Any, labels: Any) -> Any:
    return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels.astype(jnp.float32))


def _classes(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


_NETWORKS = {"mlp": _mlp, "cnn": _cnn, "lstm": _lstm}


def main(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run as told by a JSON object."""
    return {"seconds": run(**arguments)}


if __name__ == "__main__":
    answer(main)
