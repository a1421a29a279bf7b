"""A user's own strategy cannot ask clients for what no type of message knows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from shoal.common.config.file import load_scenario
from shoal.common.errors import TooFewRepliesError
from shoal.server.app import Hooks
from shoal.simulations import datasets
from shoal.simulations.results import RunFolder
from shoal.simulations.run import coordinate, run_scenario

SECRET = "hunter2"


class Scheduled(FedAvg):
    """FedAvg with a step size of its own for each round, and metrics of its own."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["learning-rate"] = 0.1 / server_round
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, found = super().aggregate_train(server_round, replies)
        return arrays, MetricRecord({**(found or {}), "server_norm": 3.0 * server_round})

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return MetricRecord({**(super().aggregate_evaluate(server_round, replies) or {}), "fairness": 0.5})


class Chatty(FedAvg):
    """FedAvg that tells its clients something of its own, as Flower's tutorials do."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["note"] = SECRET
        return super().configure_train(server_round, arrays, config, grid)


class Reckless(FedAvg):
    """FedAvg with a step size that is no number."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["learning-rate"] = float("nan")
        return super().configure_train(server_round, arrays, config, grid)


def run(*settings: str) -> None:
    scenario = load_scenario(
        "linear",
        [
            "partition.clients=3",
            "training.rounds=1",
            "data.validation_fraction=0",
            "output.bootstrap=0",
            *settings,
        ],
    )
    hooks = Hooks([], lambda fitted: None)
    coordinate(scenario, datasets.load_population(scenario), hooks, lambda outcome: None)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(("resources.backend=serial",), id="serial"),
        pytest.param(("resources.workers=1", "resources.transport=grpc"), id="grpc"),
    ],
)
def test_an_unknown_key_is_refused_by_every_client_and_named(
    where: tuple[str, ...], ray_session: None
) -> None:
    with pytest.raises(TooFewRepliesError) as caught:
        run(f"strategy.name={__name__}:Chatty", *where)
    assert "0 of 3 clients answered" in str(caught.value)
    assert 'MessageError: a TrainRequest has no key "note" in its record "config"' in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(TooFewRepliesError, match='"learning-rate" in the record "config" of a request: nan'):
        run(f"strategy.name={__name__}:Reckless", "resources.backend=serial")


def test_rates_and_metrics_of_a_strategy_reach_clients_results_and_report(tmp_path: Path) -> None:
    def run(*settings: str) -> RunFolder:
        given = ["partition.clients=3", "training.rounds=2", "output.bootstrap=0", "resources.backend=serial"]
        return RunFolder(
            run_scenario(load_scenario("linear", [*given, f"output.directory={tmp_path}", *settings]))
        )

    own = run(f"strategy.name={__name__}:Scheduled")
    rows = own.round_rows()
    assert [row.learning_rate for row in rows[1:]] == [0.1, 0.05]
    assert [row.metrics.get("server_norm") for row in rows] == [None, 3.0, 6.0]
    assert [row.metrics.get("fairness") for row in rows] == [0.5, 0.5, 0.5]
    assert "server_norm" in (own.path / "report.html").read_text()
    # The clients trained with these rates: FedAvg with the same one in round 1 has the same loss there.
    same = run("training.learning_rate=0.1").round_rows()
    # Its updates are averaged one by one, in another order.
    assert rows[1].metrics["loss"] == pytest.approx(same[1].metrics["loss"], rel=1e-5)
    assert rows[2].metrics["loss"] > 1.01 * same[2].metrics["loss"]
