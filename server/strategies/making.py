"""Creates a strategy from its name and arguments, and checks both before anything runs."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from shoal.common import errors
from shoal.common.config import StrategyConfig
from shoal.common.errors import ConfigError
from shoal.common.plugins import is_users_own, load_object
from shoal.server.strategies.catalog import (
    RESERVED,
    STRATEGIES,
    check_stock,
    min_clients_per_round,
    reserved,
)

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def check(strategy: StrategyConfig) -> list[str]:
    """Return one line for each problem with a strategy's name and arguments.

    Flower is imported only for the user's own class, which imports it anyway.
    """
    if not is_users_own(strategy.name):
        return check_stock(strategy)
    try:
        kind = _users_class(strategy.name)
    except ConfigError as error:
        return error.problems
    parameters = inspect.signature(kind).parameters
    known = [name for name in parameters if name not in (*RESERVED, "args", "kwargs")]
    problems = reserved(strategy.args)
    if not _open_ended(kind):
        unknown = [name for name in strategy.args if name not in (*known, *RESERVED)]
        what = f"argument of {strategy.name}"
        problems += [f"strategy.args: {errors.unknown_name(what, name, known)}" for name in unknown]
    needed = [
        n for n in known if parameters[n].default is inspect.Parameter.empty and _by_name(parameters[n])
    ]
    missing = [name for name in needed if name not in strategy.args]
    return [*problems, *(f"strategy.args.{name}: {strategy.name} requires this argument" for name in missing)]


def make(strategy: StrategyConfig, cohort_size: int, learning_rate: float) -> Strategy:
    """Create a strategy that asks and aggregates all clients that it is shown.

    Args:
        strategy: name and arguments.
        cohort_size: clients in a round.
        learning_rate: of the clients, for QFedAvg, which estimates a Lipschitz constant from it.

    Raises:
        ConfigError: unknown name or argument, too few clients, or the class rejects its arguments.
    """
    problems = check(strategy)
    if not problems and not is_users_own(strategy.name) and cohort_size < min_clients_per_round(strategy):
        problems.append(
            f"strategy.name: {strategy.name} needs at least {min_clients_per_round(strategy)} clients per "
            f"round with these arguments, but there are {cohort_size}"
        )
    if problems:
        raise ConfigError(problems)
    kind = _users_class(strategy.name) if is_users_own(strategy.name) else named_class(strategy.name)
    given = {**_ours(kind), **strategy.args}
    if strategy.name == "QFedAvg":
        given.setdefault("client_learning_rate", learning_rate)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy.args: {strategy.name} rejected them: {error}") from error


def _ours(kind: type[Strategy]) -> dict[str, Any]:
    """Return the arguments that shoal sets, if the class accepts them.

    The strategy sees only the cohort and must use all of it. Flower waits forever if there are fewer nodes
    than its minimum, so the minimum is 1.
    """
    from shoal.server.strategies.metrics import mean_over_clients

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
    return {name: value for name, value in given.items() if name in parameters or _open_ended(kind)}


def _open_ended(kind: type[Any]) -> bool:
    """Whether a class accepts arguments of any name, to pass them to its parent."""
    parameters = inspect.signature(kind).parameters.values()
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _by_name(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def named_class(name: str) -> type[Strategy]:
    """Return the class of one of `STRATEGIES`."""
    found: type[Strategy] = getattr(importlib.import_module(STRATEGIES[name].module), name)
    return found


def _users_class(name: str) -> type[Strategy]:
    from flwr.serverapp.strategy import Strategy

    found = load_object("strategy.name", name)
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        raise ConfigError(f'strategy.name: "{name}" is not a flwr.serverapp.strategy.Strategy')
    if inspect.isabstract(found):
        lacks = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError(f'strategy.name: "{name}" lacks the methods {lacks}')
    return found
