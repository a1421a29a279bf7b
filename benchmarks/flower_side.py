"""Stock Flower's side: `run_simulation` with the Ray backend, two actors, stock FedAvg.

The ClientApp comes in two forms: the quickstart's, which builds, compiles and fits a model for every
message, and a careful user's, which keeps one compiled model in each actor process. As a program it takes
a JSON object of the arguments of `run` and prints what it measured as JSON.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result
from flwr.simulation import run_simulation

from benchmarks.arrays import BATCH, Arrays
from benchmarks.children import answer
from benchmarks.models import compiled
from benchmarks.tasks import TASKS

Form = Literal["quickstart", "cached"]


@dataclass(slots=True)
class FlowerRounds:
    """Seconds of each round after the first, and the final model on the held-out rows."""

    seconds: list[float] = field(default_factory=list)
    accuracy: float = float("nan")
    loss: float = float("nan")


def run(
    task: str, rounds: int, data: str, *, form: Form = "cached", nodes: int | None = None, cohort: int = 0
) -> FlowerRounds:
    """Run a task's rounds in stock Flower and measure them.

    Args:
        task: name; rounds: to measure, after one to warm up.
        data: what `Arrays.write` wrote.
        form: of the ClientApp.
        nodes: supernodes, at most the clients in `data`; `None` for all.
        cohort: clients in a round; 0 for the task's.
    """
    arrays = Arrays.read(data)
    nodes = nodes or arrays.clients
    strategy = TimedFedAvg(cohort or TASKS[task].cohort, nodes)
    results: list[Result] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord(arrays.weights)
        results.append(strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds + 1))

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}}
    run_simulation(server, make_app(task, data, form), nodes, backend_config=resources)
    measured = FlowerRounds([later - end for end, later in itertools.pairwise(strategy.ends)])
    from benchmarks.shoal_side import evaluate

    weights = results[0].arrays.to_numpy_ndarrays()
    measured.accuracy, measured.loss = evaluate(task, weights, arrays)
    return measured


class TimedFedAvg(FedAvg):
    """Stock FedAvg that notes when each round ends."""

    def __init__(self, cohort: int, nodes: int) -> None:
        super().__init__(
            fraction_train=cohort / nodes,
            fraction_evaluate=0.0,
            min_train_nodes=cohort,
            min_available_nodes=nodes,
        )
        self.ends: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        found = list(replies)
        failed = [reply for reply in found if reply.has_error()]
        if failed:  # it would go on without them, and so be measured at less work
            raise RuntimeError(f"{len(failed)} clients failed: {failed[0].error.reason}")
        aggregated = super().aggregate_train(server_round, found)
        self.ends.append(time.perf_counter())
        return aggregated


def make_app(task: str, data: str, form: Form) -> ClientApp:
    """Return the ClientApp in one of its two forms."""
    app = ClientApp()
    rate = TASKS[task].learning_rate

    @app.train()
    def train(message: Message, context: Context) -> Message:
        import keras

        if form == "quickstart":
            keras.backend.clear_session()
            model = compiled(task, keras, rate)
        else:
            model = _resident_model(task, rate)
        x, y = _resident_data(data).client(int(context.node_config["partition-id"]))
        model.set_weights(message.content.array_records["arrays"].to_numpy_ndarrays())
        history = model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        loss = float(history.history["loss"][-1])
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.get_weights()),
                "metrics": MetricRecord({"train-loss": loss, "num-examples": len(y)}),
            }
        )
        return Message(content, reply_to=message)

    return app


@cache
def _resident_model(task: str, rate: float) -> Any:
    """Return the one model of this actor process. Plain SGD has no state that would need a reset."""
    import keras

    return compiled(task, keras, rate)


@cache
def _resident_data(data: str) -> Arrays:
    return Arrays.read(data)


def main(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run as told by a JSON object."""
    return asdict(run(**arguments))


if __name__ == "__main__":
    # Actors unpickle functions by the name of their module: it has to be one that they can import.
    from benchmarks import flower_side

    answer(flower_side.main)
