"""A user's own strategy cannot ask clients for what no type of message knows."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from shoal.common.config.file import load_scenario
from shoal.common.errors import TooFewRepliesError
from shoal.server.app import Hooks
from shoal.simulations import datasets
from shoal.simulations.run import coordinate

SECRET = "hunter2"


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
