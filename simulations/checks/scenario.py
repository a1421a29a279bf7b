"""What can be found wrong with a scenario before it is run, all at once."""

from __future__ import annotations

from collections.abc import Callable

from shoal.common.config import Scenario
from shoal.common.config.cross_checks import cross_problems
from shoal.common.errors import ConfigError, ShoalError
from shoal.common.preprocessing.sums.noise import protection
from shoal.simulations.checks.privacy import privacy_problems, secure_cohort_problems, secure_problems

# Rows of all clients up to which a deep check fits the preprocessing and builds the model.
_CHEAP_ROWS = 200_000


def validate(scenario: Scenario, deep: bool) -> list[str]:
    """Return one line for each problem of a scenario; none means that it can be run.

    Args:
        scenario: whose sections are valid in themselves.
        deep: also load the data, spread it over clients and build the model on it. Without, no
            data is read and neither TensorFlow, Ray nor Flower is imported.
    """
    problems = [
        *cross_problems(scenario),
        *_strategy_problems(scenario),
        *privacy_problems(scenario),
        *secure_problems(scenario),
        *_registry_checks(scenario),
    ]
    if not deep or problems:  # data loaded for a broken scenario would only repeat its problems
        return problems
    return _collect(_deep_check, scenario)


def _registry_checks(scenario: Scenario) -> list[str]:
    from shoal.common import models
    from shoal.server import strategies
    from shoal.simulations import attacks, datasets

    return [
        *_collect(datasets.check, scenario),
        *_collect(models.scenario_problems, scenario),
        *_collect(lambda _: strategies.check(scenario.strategy), scenario),
        *_collect(lambda _: attacks.check(scenario.attack), scenario),
    ]


def _collect(check: Callable[[Scenario], list[str]], scenario: Scenario) -> list[str]:
    """Run a check, with an error that it raises as one more problem."""
    try:
        return list(check(scenario))
    except ConfigError as error:
        return error.problems
    except ShoalError as error:
        return [str(error)]


def _strategy_problems(scenario: Scenario) -> list[str]:
    """Check what single strategies need of other sections."""
    strategy, training = scenario.strategy, scenario.training
    problems = []
    if strategy.name == "FLTrust" and (strategy.clients_per_round or strategy.sampling == "poisson"):
        problems.append(
            "strategy.name: FLTrust needs its trusted client in every round, but the cohort is drawn: set "
            'strategy.clients_per_round = 0 and strategy.sampling = "fixed"'
        )
    own_rate = "client_learning_rate" in strategy.args
    if strategy.name == "QFedAvg" and training.optimizer != "sgd" and not own_rate:
        problems.append(
            f"strategy.name: QFedAvg takes its step size from the clients' SGD, but training.optimizer is "
            f'"{training.optimizer}", with which it would hardly move: use sgd, or set '
            "strategy.args.client_learning_rate (1.0 is a start)"
        )
    return problems


def _deep_check(scenario: Scenario) -> list[str]:
    """Load the data, spread it, and build the model on what a run would feed it."""
    from shoal.simulations import datasets

    population = datasets.load_population(scenario)
    clients = len(population)
    problems = [
        f"strategy.{key} = {size} is more than the {clients} clients that the data gives"
        for key, size in (
            ("clients_per_round", scenario.strategy.clients_per_round),
            ("evaluate_clients", scenario.strategy.evaluate_clients),
        )
        if size > clients
    ]
    if scenario.preprocessing.min_sites > clients:
        problems.append(
            f"preprocessing.min_sites = {scenario.preprocessing.min_sites} is more than the "
            f"{clients} clients that the data gives, so no statistic could ever be kept: lower it, "
            "or add clients"
        )
    problems += secure_cohort_problems(scenario, scenario.strategy.clients_per_round or clients)
    protection(population.schema, scenario)  # refuses noise for columns that have to be told as they are
    if problems or sum(population.rows(client) for client in range(clients)) > _CHEAP_ROWS:
        return problems

    from shoal.clients.preprocessing.statistics import local_statistics
    from shoal.clients.shard import split
    from shoal.common import models
    from shoal.server.preprocessing import fit as preprocessing
    from shoal.simulations.attacks.adversary import make_adversary

    make_adversary(scenario, population)  # raises where attack and data do not fit
    schema = population.schema
    parts = (
        split(population.shard(client), scenario.data, scenario.seed, client) for client in range(clients)
    )
    statistics = [local_statistics(part["train"], schema, scenario.preprocessing) for part in parts]
    spec = preprocessing.fit(statistics, schema, scenario.preprocessing).input_spec
    model = models.build(scenario.model, spec, schema.num_classes, seed=scenario.seed)
    models.compile_model(model, scenario.training, schema.task)
    return []
