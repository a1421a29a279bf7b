"""The table of strategies: names, arguments, a class of the user's own, and the page made from it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp import strategy as stock

from shoal.common.config import StrategyConfig
from shoal.common.errors import ConfigError
from shoal.server.strategies import STRATEGIES, check, make, needs_every_update
from shoal.server.strategies.catalog import FLOWER, RESERVED, min_clients_per_round
from shoal.server.strategies.making import named_class
from shoal.server.strategies.metrics import mean_over_clients
from tests.helpers.federated import LEARNING_RATE

NAMES = tuple(STRATEGIES)
CLIENTS = 7


# --- names and arguments


@pytest.mark.parametrize("name", NAMES)
def test_catalog_has_the_arguments_and_defaults_of_the_class(name: str) -> None:
    parameters = inspect.signature(named_class(name)).parameters
    own = {n: p.default for n, p in parameters.items() if n not in (*RESERVED, "kwargs")}
    listed = {n: a.default for n, a in STRATEGIES[name].arguments.items()}
    empty = inspect.Parameter.empty
    assert listed == {n: None if default is empty else default for n, default in own.items()}


def test_every_strategy_of_flower_that_takes_weights_is_there() -> None:
    """XGBoost's take trees; the wrappers that add noise are not strategies by themselves."""
    others = {"Strategy", "Result", "FedXgbBagging", "FedXgbCyclic"}
    known = {n for n in stock.__all__ if n not in others and not n.startswith("DifferentialPrivacy")}
    assert known == {n for n in NAMES if STRATEGIES[n].module == FLOWER}


def test_which_strategies_need_every_update() -> None:
    """Those whose aggregate is not a function of the mean by examples."""
    means = {n for n in NAMES if not needs_every_update(StrategyConfig(name=n))}
    assert means == {"FedAvg", "FedAvgM", "FedProx", "FedAdam", "FedYogi", "FedAdagrad", "SCAFFOLD"}
    assert needs_every_update(StrategyConfig(name="somebody:Else"))


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("FedAvgg", {}, 'Did you mean "FedAvg"?'),
        ("FedProx", {"proximal_nu": 1}, 'Did you mean "proximal_mu"?'),
        ("FedAvg", {"eta": 1}, "FedAvg takes no arguments, got eta"),
        ("FedAvg", {"fraction_train": 0.5}, "set strategy.clients_per_round"),
        ("Bulyan", {"selection_rule": "krum"}, "a function cannot be set"),
        ("QFedAvg", {"train_loss_key": "loss"}, "shoal sets the names of records in messages"),
        ("FedTrimmedAvg", {"beta": 0.5}, "at least 0 and below 0.5, got 0.5"),
        ("FedAdam", {"tau": 0}, "a number above 0, got 0"),
        ("FedProx", {"proximal_mu": "a lot"}, "expected a number of at least 0, got 'a lot'"),
        ("FedProx", {"proximal_mu": True}, "got True"),
        ("Krum", {"num_malicious_nodes": 1.5}, "a whole number of at least 0, got 1.5"),
        ("MultiKrum", {"num_nodes_to_select": 0}, "of at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_said(name: str, args: dict[str, Any], expected: str) -> None:
    config = StrategyConfig(name=name, args=args)
    assert [line for line in check(config) if expected in line], check(config)
    with pytest.raises(ConfigError) as caught:
        make(config, CLIENTS, LEARNING_RATE)
    assert expected in str(caught.value)


def test_all_problems_are_listed_and_whole_numbers_are_numbers() -> None:
    wrong = StrategyConfig(name="FedAdam", args={"etta": 1, "tau": -1, "min_train_nodes": 2})
    assert len(check(wrong)) == 3
    assert check(StrategyConfig(name="FedAdam", args={"eta": 1})) == []


@pytest.mark.parametrize(
    ("name", "args", "fewest"),
    [
        ("FedAvg", {}, 1),
        ("Krum", {}, 3),
        ("Krum", {"num_malicious_nodes": 2}, 7),  # 2·2 + 3
        ("Bulyan", {"num_malicious_nodes": 2}, 11),  # 4·2 + 3
        ("MultiKrum", {"num_nodes_to_select": 5}, 5),
    ],
)
def test_too_few_clients_are_refused(name: str, args: dict[str, Any], fewest: int) -> None:
    config = StrategyConfig(name=name, args=args)
    assert min_clients_per_round(config) == fewest
    make(config, fewest, LEARNING_RATE)
    if fewest > 1:
        with pytest.raises(ConfigError, match=f"needs at least {fewest} clients .* there are {fewest - 1}"):
            make(config, fewest - 1, LEARNING_RATE)


def test_arguments_are_not_mutated() -> None:
    args = {"q": 0.5}
    make(StrategyConfig(name="QFedAvg", args=args), 3, LEARNING_RATE)
    assert args == {"q": 0.5}


# --- a strategy of the user's own

OWN = '''
from flwr.serverapp.strategy import FedAvg, Strategy

class Half(FedAvg):
    """Goes half of the way; hands all else on."""
    def __init__(self, share=0.5, **kwargs):
        super().__init__(**kwargs)
        self.share = share

class Strict(FedAvg):
    def __init__(self, needed, fraction_train=1.0, min_available_nodes=2):
        super().__init__(fraction_train=fraction_train, min_available_nodes=min_available_nodes)

class Picky(FedAvg):
    def __init__(self, share=0.5):
        if share > 1:
            raise ValueError("share is above 1")
        super().__init__()

class Unfinished(Strategy):
    pass

NotOne = dict
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the present folder."""
    (tmp_path / "own_strategies_for_test.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "broken_strategies_for_test.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_strategies_for_test"


def test_a_class_of_ones_own(own: str) -> None:
    strategy = make(StrategyConfig(name=f"{own}:Half", args={"share": 0.25}), 3, LEARNING_RATE)
    assert strategy.share == 0.25  # type: ignore[attr-defined]
    assert strategy.min_available_nodes == 1  # type: ignore[attr-defined]
    assert strategy.evaluate_metrics_aggr_fn is mean_over_clients  # type: ignore[attr-defined]
    strict = make(StrategyConfig(name=f"{own}:Strict", args={"needed": 1}), 3, LEARNING_RATE)
    assert strict.min_available_nodes == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("{own}:Missing", {}, "cannot be loaded: AttributeError"),
        ("no_such_module_anywhere:X", {}, "cannot be loaded: ModuleNotFoundError"),
        ("broken_strategies_for_test:X", {}, "cannot be loaded: ZeroDivisionError"),
        (":X", {}, "cannot be loaded"),
        ("{own}:NotOne", {}, "is not a flwr.serverapp.strategy.Strategy"),
        ("{own}:Unfinished", {}, "lacks the methods aggregate_evaluate"),
        ("{own}:Strict", {}, "strategy.args.needed: {own}:Strict requires this argument"),
        ("{own}:Strict", {"needed": 1, "neded": 2}, 'Did you mean "needed"?'),
        ("{own}:Half", {"fraction_train": 0.5}, "set strategy.clients_per_round"),
        ("{own}:Picky", {"share": 2}, "rejected them: share is above 1"),
    ],
)
def test_what_is_wrong_with_ones_own_class_is_said(
    own: str, name: str, args: dict[str, Any], expected: str
) -> None:
    config = StrategyConfig(name=name.format(own=own), args=args)
    with pytest.raises(ConfigError) as caught:
        make(config, 3, LEARNING_RATE)
    assert expected.format(own=own) in str(caught.value)


# --- documentation


def docs_row(name: str) -> str:
    """The line of the table in docs/strategies.md."""
    entry = STRATEGIES[name]
    args = ", ".join(
        f"`{n}`" if a.default is None else f"`{n}` = {a.default:g}" for n, a in entry.arguments.items()
    )
    fewest = str(entry.min_clients)
    if entry.clients_per_malicious:
        fewest += f" + {entry.clients_per_malicious} per malicious client"
    return f"| `{name}` | {entry.summary} | {args or '–'} | {fewest} | {entry.note or '–'} |"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_a_row_for_it(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "strategies.md"
    assert docs_row(name) in page.read_text(encoding="utf-8").splitlines()
