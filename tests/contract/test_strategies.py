"""One suite over all strategies, Flower's and ours: a new one is a row of `NAMES` and of the catalog.

Updates are made up, messages are real: they go through our Grid to a ClientApp and back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as stock

from shoal.common.config.file import load_scenario
from shoal.common.messages.replies import client_table
from shoal.common.weights import is_finite, with_types_of
from shoal.server.checkpoint import Checkpoints
from shoal.server.strategies import STRATEGIES
from shoal.server.strategies.metrics import mean_over_clients
from shoal.server.strategies.state import left_out_of, restore, state_of
from tests.helpers.federated import LEARNING_RATE, Federated, Weights, made, same, scalars, some_weights

NAMES = tuple(STRATEGIES)

# Arguments under which equal updates give that very update: at FedOpt's servers a learning rate replaces it.
MEANS: Mapping[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedAvgM": {},
    "FedProx": {"proximal_mu": 0.1},
    "FedMedian": {},
    "FedTrimmedAvg": {},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
    "QFedAvg": {"q": 0.0},
    "NormClippedMean": {},
    "GeometricMedian": {},
    "WeightedMedian": {},
    "FLTrust": {},
}

CLIENTS = 7  # enough for Bulyan with one malicious client: 4·1 + 3


@pytest.mark.parametrize("name", MEANS)
def test_equal_updates_give_that_update(name: str) -> None:
    rng = np.random.default_rng(0)
    sent, update = some_weights(rng), some_weights(rng)
    arrays, _ = made(name, CLIENTS, MEANS[name]).round(ArrayRecord(sent), [update] * CLIENTS)
    same(arrays.to_numpy_ndarrays(), update)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_clients_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(1)
    sent, updates = ArrayRecord(some_weights(rng)), [some_weights(rng) for _ in range(CLIENTS)]
    examples, losses = list(range(1, CLIENTS + 1)), [0.5 + i for i in range(CLIENTS)]
    found = []
    for order in (list(range(CLIENTS)), [3, 0, 6, 1, 5, 2, 4]):
        where = {"trusted": order.index(0)} if name == "FLTrust" else MEANS.get(name)
        arrays, metrics = made(name, CLIENTS, where).round(
            sent, [updates[i] for i in order], [examples[i] for i in order], [losses[i] for i in order]
        )
        found.append((arrays.to_numpy_ndarrays(), metrics["train_loss"]))
    same(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_two_rounds_keep_names_shapes_types_and_what_was_sent(name: str) -> None:
    rng = np.random.default_rng(2)
    federated = made(name, CLIENTS, MEANS.get(name))
    sent = ArrayRecord(some_weights(rng))
    for number in (1, 2):
        before = [w.copy() for w in sent.to_numpy_ndarrays()]
        arrays, _ = federated.round(sent, [some_weights(rng) for _ in range(CLIENTS)], number=number)
        same(sent.to_numpy_ndarrays(), before, rtol=0, atol=0)
        assert list(arrays) == list(sent)
        assert [a.shape for a in arrays.values()] == [a.shape for a in sent.values()]
        assert is_finite(arrays)
        sent = with_types_of(arrays, sent)
        assert {a.dtype for a in sent.values()} == {"float32"}


def test_strategies_that_give_another_type_are_known() -> None:
    """The round loop casts back, or clients that answer in float32 would be refused in round 2.

    FedAdam and QFedAvg multiply by a numpy float64, which is not a weak type as a Python float is.
    """
    rng = np.random.default_rng(3)
    sent, updates = ArrayRecord(some_weights(rng)), [some_weights(rng) for _ in range(CLIENTS)]
    wide = [
        n for n in NAMES if made(n, CLIENTS, MEANS.get(n)).round(sent, updates)[0]["0"].dtype != "float32"
    ]
    assert wide == ["FedAdam", "QFedAvg"]


@pytest.mark.parametrize("name", [n for n in NAMES if STRATEGIES[n].min_clients == 1])
def test_a_cohort_of_one_is_not_waited_for(name: str) -> None:
    rng = np.random.default_rng(4)
    arrays, _ = made(name, 1, MEANS.get(name)).round(ArrayRecord(some_weights(rng)), [some_weights(rng)])
    assert is_finite(arrays)


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgM", "FedProx"])
def test_mean_by_examples(name: str) -> None:
    """(1·2 + 3·6) / 4 = 5."""
    assert scalars(name, 1.0, [2.0, 6.0], examples=[1, 3])[0] == pytest.approx(5.0)


def test_fedavgm_by_hand() -> None:
    """Learning rate 0.5, momentum 0.9.

    Round 1: 1 → mean 3, step 3 - 1 = 2,          new 1 + 0.5·2 = 2.
    Round 2: 2 → mean 4, step 0.9·2 + 2 = 3.8,    new 2 + 0.5·3.8 = 3.9.
    """
    first, federated = scalars("FedAvgM", 1.0, [3.0, 3.0], server_learning_rate=0.5, server_momentum=0.9)
    assert first == pytest.approx(2.0)
    sent = ArrayRecord([np.array([first], np.float32)])
    arrays, _ = federated.round(sent, [[np.array([4.0], np.float32)]] * 2, number=2)
    assert arrays.to_numpy_ndarrays()[0][0] == pytest.approx(3.9)


def test_fedprox_tells_the_clients_mu() -> None:
    _, federated = scalars("FedProx", 0.0, [1.0, 1.0], proximal_mu=0.25)
    assert [c["proximal-mu"] for c in federated.configs] == [0.25, 0.25]


def test_fedadam_by_hand_over_two_rounds() -> None:
    """eta = 0.1, beta_1 = 0.9, beta_2 = 0.99, tau = 0.001; Flower counts its first round as step 2.

    Each round every client moves by 1: m = 0.1, then 0.19; v = 0.01, then 0.0199.
    """
    expected, m, v = 0.0, 0.0, 0.0
    found, federated = scalars("FedAdam", 0.0, [1.0, 1.0])
    for number in (1, 2):
        m, v = 0.9 * m + 0.1, 0.99 * v + 0.01
        rate = 0.1 * math.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        expected += rate * m / (math.sqrt(v) + 1e-3)
        if number == 2:
            sent = ArrayRecord([np.array([found], np.float32)])
            arrays, _ = federated.round(sent, [[np.array([found + 1], np.float32)]] * 2, number=2)
            found = float(arrays.to_numpy_ndarrays()[0][0])
        assert found == pytest.approx(expected, rel=1e-5)


def test_fedyogi_and_fedadagrad_by_hand() -> None:
    """One round in which every client moves by 1 from 0, tau = 0.001.

    Yogi: m = 0.1, v = 0 - 0.01·1·sign(0 - 1) = 0.01, step 0.01·0.1 / (0.1 + 0.001).
    Adagrad: m = 1 (no momentum), v = 1, step 0.1·1 / (1 + 0.001).
    """
    assert scalars("FedYogi", 0.0, [1.0, 1.0])[0] == pytest.approx(0.001 / 0.101, rel=1e-5)
    assert scalars("FedAdagrad", 0.0, [1.0, 1.0])[0] == pytest.approx(0.1 / 1.001, rel=1e-5)


def test_median_and_trimmed_mean_by_hand() -> None:
    """Of 0 1 2 3 100 the median is 2; with ⌊0.2·5⌋ = 1 cut at each end the mean of 1 2 3 is 2."""
    values = [0.0, 1.0, 2.0, 3.0, 100.0]
    assert scalars("FedMedian", 0.0, values)[0] == 2.0
    assert scalars("FedTrimmedAvg", 0.0, values, beta=0.2)[0] == 2.0
    # ⌊0.19·5⌋ = 0: nothing is cut, and the mean is 106 / 5.
    assert scalars("FedTrimmedAvg", 0.0, values, beta=0.19)[0] == pytest.approx(21.2)


def test_krum_and_multikrum_by_hand() -> None:
    """0, 0.1, 0.25, 0.5, 10 with one malicious: 5 - 1 - 2 = 2 neighbours count.

    Squared distances to them: 0.01 + 0.0625 = 0.0725; 0.01 + 0.0225 = 0.0325; 0.0225 + 0.0625 = 0.085;
    0.0625 + 0.16 = 0.2225; far. So Krum takes 0.1, MultiKrum of two 0.1 and 0, by examples 3 and 1:
    (3·0.1 + 1·0) / 4 = 0.075.
    """
    values, examples = [0.0, 0.1, 0.25, 0.5, 10.0], [1, 3, 1, 1, 1]
    found, _ = scalars("Krum", 0.0, values, examples=examples, num_malicious_nodes=1)
    assert found == pytest.approx(0.1)
    args = {"num_malicious_nodes": 1, "num_nodes_to_select": 2}
    assert scalars("MultiKrum", 0.0, values, examples=examples, **args)[0] == pytest.approx(0.075)


def test_bulyan_by_hand() -> None:
    """0.5 1 2 3 4 5 100 with one malicious: 4 neighbours count, 7 - 2 = 5 are selected, 3 averaged.

    Sums of squared distances: 21, 14.25, 8.25, 10, 15, 30, far; so 5 and 100 go. The median of the rest is
    2, its three nearest are 2, 1 and 3, their mean is 2.
    """
    values = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0]
    assert scalars("Bulyan", 0.0, values, num_malicious_nodes=1)[0] == pytest.approx(2.0)


def test_qfedavg_by_hand() -> None:
    """L = 1 / 0.1 = 10, q = 1, w = 1; updates 0.5 (loss 4) and 0.8 (loss 1).

    Gradients 10·0.5 = 5 and 10·0.2 = 2; delta 4·5 = 20 and 1·2 = 2; h = 1·25 + 10·4 = 65 and 1·4 + 10·1 = 14.
    w - (20 + 2) / (65 + 14) = 1 - 22 / 79.
    """
    found, federated = scalars("QFedAvg", 1.0, [0.5, 0.8], losses=[4.0, 1.0], q=1.0)
    assert found == pytest.approx(1 - 22 / 79)
    assert federated.strategy.client_learning_rate == LEARNING_RATE  # type: ignore[attr-defined]
    # With q = 0 it is the plain mean, whatever the numbers of examples: (0.5 + 0.8) / 2.
    found, _ = scalars("QFedAvg", 1.0, [0.5, 0.8], examples=[1, 9], q=0.0)
    assert found == pytest.approx(0.65)


def test_qfedavg_steps_shrink_as_its_note_says() -> None:
    """One update of length 2 at loss 0.5, q = 0.1: the step is 2 / (1 + 0.1·4 / (rate·0.5)).

    2 / (1 + 0.8) at rate 1; 2 / (1 + 800 / 3) at 0.003, a usual rate of Adam: the model hardly moves.
    """
    for rate, step in ((1.0, 2 / 1.8), (0.003, 2 / (1 + 800 / 3))):
        found, _ = scalars("QFedAvg", 0.0, [2.0], losses=[0.5], q=0.1, client_learning_rate=rate)
        assert found == pytest.approx(step, rel=1e-5)


def test_robust_strategies_survive_one_wild_client() -> None:
    """Six clients say about 1, one says 10^6: a mean is swept away, a robust aggregate is not."""
    values = [0.97, 0.98, 0.99, 1.01, 1.02, 1.03, 1e6]
    robust = ("FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan")
    for name in (*robust, "NormClippedMean", "GeometricMedian", "WeightedMedian", "FLTrust"):
        assert scalars(name, 0.0, values, **MEANS[name])[0] == pytest.approx(1.0, abs=0.05), name
    assert scalars("FedAvg", 0.0, values)[0] > 1e5


# --- metrics of clients


def metric_reply(examples: float, **numbers: float) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"num-examples": examples, **numbers})})


def test_a_site_without_the_metric_does_not_count_for_it() -> None:
    """AUC at two of three sites: (10·0.8 + 30·0.6) / 40 = 0.65.

    Loss at all of them: (10·1 + 60·2 + 30·3) / 100 = 2.2.
    """
    replies = [
        metric_reply(10, auc=0.8, loss=1.0),
        metric_reply(60, auc=math.nan, loss=2.0),
        metric_reply(30, auc=0.6, loss=3.0),
    ]
    found = mean_over_clients(replies, "num-examples")
    assert dict(found) == pytest.approx({"auc": 0.65, "loss": 2.2})
    assert list(found) == ["auc", "loss"]  # not the weights


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_no_site_has_is_nan(value: float) -> None:
    found = mean_over_clients([metric_reply(10, auc=value), metric_reply(5, auc=value)], "num-examples")
    assert math.isnan(float(found["auc"]))  # type: ignore[arg-type]


def test_sites_without_rows_have_no_weight() -> None:
    assert math.isnan(float(mean_over_clients([metric_reply(0, loss=1.0)], "num-examples")["loss"]))  # type: ignore[arg-type]
    found = mean_over_clients([metric_reply(0, loss=9.0), metric_reply(2, loss=1.0)], "num-examples")
    assert found["loss"] == 1.0


def test_a_reply_for_several_clients_counts_as_theirs() -> None:
    told = [{"num-examples": 10, "auc": 0.5}, {"num-examples": 30, "auc": math.nan}]
    together = metric_reply(40, auc=0.5)
    together["clients"] = client_table([3, 4], told)
    found = mean_over_clients([together, metric_reply(30, auc=0.9)], "num-examples")
    # (10 · 0.5 + 30 · 0.9) / 40: the 30 rows without an AUC have no weight.
    assert found["auc"] == pytest.approx(0.8)


# --- what a strategy remembers


def carried(federated: Federated, sent: ArrayRecord, updates: Sequence[Weights], number: int) -> ArrayRecord:
    """Run a round and return its weights as the round loop would send them next."""
    arrays, _ = federated.round(sent, updates, number=number)
    return with_types_of(arrays, sent)


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_goes_on_from_what_it_remembered(name: str, tmp_path: Path) -> None:
    """Four rounds, and two of them with the state carried over to a new strategy by a checkpoint."""
    rng = np.random.default_rng(5)
    given = {"FedAvgM": {"server_momentum": 0.9}}.get(name, MEANS.get(name))
    updates = [[some_weights(rng) for _ in range(CLIENTS)] for _ in range(4)]

    whole = made(name, CLIENTS, given)
    expected = ArrayRecord(some_weights(rng))
    start = expected.copy()
    for number, update in enumerate(updates, start=1):
        expected = carried(whole, expected, update, number)

    first, found = made(name, CLIENTS, given), start
    for number in (1, 2):
        found = carried(first, found, updates[number - 1], number)
    scenario = load_scenario("linear")
    files = Checkpoints(tmp_path, scenario)
    files.save_start({})
    files.save(2, {"strategy": state_of(first.strategy), "weights": found})
    loaded = files.load()
    assert loaded is not None
    second, found = made(name, CLIENTS, given), loaded[1]["weights"]
    restore(second.strategy, loaded[1]["strategy"])
    for number in (3, 4):
        found = carried(second, found, updates[number - 1], number)
    for a, b in zip(expected.to_numpy_ndarrays(), found.to_numpy_ndarrays(), strict=True):
        assert a.tobytes() == b.tobytes()


class Remembers(stock.FedAvg):
    """A user's strategy with memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.inner = stock.FedAvgM(server_momentum=0.5)


class Tells(Remembers):
    def state_dict(self) -> dict[str, object]:
        return {"seen": sorted(self.seen)}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        self.seen = set(state["seen"])


def test_what_is_left_out_of_a_users_strategy_is_named() -> None:
    strategy = Remembers()
    strategy.inner.momentum_vector = [np.ones(3)]
    assert left_out_of(strategy) == ["seen (set)"]
    new = Remembers()
    restore(new, state_of(strategy))
    assert new.inner.momentum_vector is not None
    assert new.inner.momentum_vector[0].tolist() == [1.0, 1.0, 1.0]


def test_a_users_strategy_may_say_what_it_remembers() -> None:
    strategy = Tells()
    strategy.seen = {3, 1}
    assert left_out_of(strategy) == []
    new = Tells()
    restore(new, state_of(strategy))
    assert new.seen == {1, 3}
