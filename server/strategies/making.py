"""Makes a strategy from its name and arguments, and checks both before anything runs."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common import errors
from common.config import StrategyConfig
from common.errors import ConfigError
from server.strategies.catalog import STRATEGIES

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

# The round loop draws the cohort and shows it whole: what to draw is not the strategy's to say.
_OURS: Final = (
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "train_metrics_aggr_fn",
    "evaluate_metrics_aggr_fn",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
)


def check(strategy: StrategyConfig) -> list[str]:
    """Return what is wrong with a strategy's name and arguments, one line each."""
    if ":" not in strategy.name and strategy.name not in STRATEGIES:
        return [f"strategy.name: {errors.unknown_name('strategy', strategy.name, STRATEGIES)}"]
    if ":" not in strategy.name and not strategy.args:
        return []  # without importing Flower
    try:
        kind = _class(strategy.name)
    except ConfigError as error:
        return error.problems
    parameters = inspect.signature(kind).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    known = [name for name in parameters if name not in _OURS and name not in ("args", "kwargs")]
    problems = []
    for name in strategy.args:
        if name in _OURS:
            problems.append(
                f"strategy.args.{name}: is set by shoal; use strategy.clients_per_round and "
                "strategy.evaluate_clients to say how many clients are drawn"
            )
        elif name not in known and not open_ended:
            what = errors.unknown_name(f"argument of {strategy.name}", name, known)
            problems.append(f"strategy.args: {what}")
    return problems


def make(strategy: StrategyConfig, cohort_size: int, learning_rate: float) -> Strategy:
    """Make a strategy that asks and aggregates everybody that it is shown.

    Args:
        strategy: name and arguments.
        cohort_size: clients in a round.
        learning_rate: of the clients, for QFedAvg, which estimates a Lipschitz constant from it.

    Raises:
        ConfigError: unknown name or argument, too few clients for it, or the class refuses its arguments.
    """
    problems = check(strategy)
    entry = STRATEGIES.get(strategy.name)
    if entry is not None and cohort_size < _fewest(strategy):
        problems.append(
            f"strategy.name: {strategy.name} needs at least {_fewest(strategy)} clients in a round, "
            f"there are {cohort_size}"
        )
    if problems:
        raise ConfigError(problems)
    from server.strategies.metrics import mean_over_clients

    kind = _class(strategy.name)
    given: dict[str, Any] = {
        "fraction_train": 1.0,
        "fraction_evaluate": 1.0,
        "min_train_nodes": 1,
        "min_evaluate_nodes": 1,
        "min_available_nodes": 1,
        "train_metrics_aggr_fn": mean_over_clients,
        "evaluate_metrics_aggr_fn": mean_over_clients,
    }
    parameters = inspect.signature(kind).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        given = {name: value for name, value in given.items() if name in parameters}
    if strategy.name == "QFedAvg":
        given["client_learning_rate"] = learning_rate
    try:
        return kind(**{**given, **strategy.args})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy.args: {strategy.name} refuses them: {error}") from error


def _fewest(strategy: StrategyConfig) -> int:
    """Return the fewest clients a round needs; Krum's family needs more for each malicious one."""
    malicious = strategy.args.get("num_malicious_nodes", 0)
    base = STRATEGIES[strategy.name].min_clients
    per_malicious = {"Krum": 2, "MultiKrum": 2, "Bulyan": 4}.get(strategy.name, 0)
    return base + per_malicious * (malicious if isinstance(malicious, int) else 0)


def _class(name: str) -> type[Strategy]:
    from flwr.serverapp import strategy as stock

    if ":" not in name:
        found = getattr(stock, name)
    else:
        module, _, attribute = name.partition(":")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f'strategy.name: "{name}" cannot be loaded: {error}') from error
    if not (inspect.isclass(found) and issubclass(found, stock.Strategy)):
        raise ConfigError(f'strategy.name: "{name}" is not a flwr.serverapp.strategy.Strategy')
    return found
