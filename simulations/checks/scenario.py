"""Finds all problems of a scenario before it is run."""

from __future__ import annotations

from collections.abc import Callable

from shoal.common.config import Scenario
from shoal.common.config.cross_checks import cross_problems
from shoal.common.errors import ConfigError, ShoalError
from shoal.common.preprocessing.sums.noise import protection
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.server.strategies.catalog import STRATEGIES, StrategyEntry
from shoal.simulations.attacks.catalog import ATTACKS
from shoal.simulations.attacks.colluding import Colluding
from shoal.simulations.checks.privacy import privacy_problems, secure_cohort_problems, secure_problems

# Rows of all clients up to which a deep check fits the preprocessing and builds the model.
_CHEAP_ROWS = 200_000


def validate(scenario: Scenario, deep: bool, say: Callable[[str], object] | None = None) -> list[str]:
    """Return one line for each problem of a scenario; an empty list means that it can be run.

    Args:
        scenario: its sections are already valid by themselves.
        deep: also load the data, partition it and build the model. Otherwise no data is read, and
            TensorFlow, Ray and Flower are not imported.
        say: called with each note on how the data were read, in a deep check.
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
    return _collect(lambda scenario: _deep_check(scenario, say), scenario)


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
    """Run a check; an error that it raises becomes one more problem."""
    try:
        return list(check(scenario))
    except ConfigError as error:
        return error.problems
    except ShoalError as error:
        return [str(error)]


def _strategy_problems(scenario: Scenario) -> list[str]:
    """Check the requirements of particular strategies."""
    strategy, training = scenario.strategy, scenario.training
    problems: list[str] = []
    if strategy.name == "FLTrust" and (strategy.clients_per_round or strategy.sampling == "poisson"):
        problems.append(
            "strategy.name: FLTrust needs its trusted client in every round, but the cohort is sampled: set "
            'strategy.clients_per_round = 0 and strategy.sampling = "fixed"'
        )
    if strategy.name in STRATEGIES:
        problems += _algorithm_problems(scenario, STRATEGIES[strategy.name])
    own_rate = "client_learning_rate" in strategy.args
    if strategy.name == "QFedAvg" and training.optimizer != "sgd" and not own_rate:
        problems.append(
            f"strategy.name: QFedAvg takes its step size from the clients' SGD, but training.optimizer is "
            f'"{training.optimizer}", with which the steps would be far too small: use sgd, or set '
            "strategy.args.client_learning_rate (try 1.0 first)"
        )
    return problems


def _algorithm_problems(scenario: Scenario, entry: StrategyEntry) -> list[str]:
    """Check what an algorithm requires of the clients' optimizer, and whether what it sends is protected."""
    name, training = scenario.strategy.name, scenario.training
    problems = []
    if entry.needs_plain_sgd and (training.optimizer != "sgd" or training.optimizer_args.get("momentum")):
        problems.append(
            f"strategy.name: {name} takes the step size from the clients' plain SGD: set "
            'training.optimizer = "sgd", without momentum'
        )
    if not entry.sends:
        return problems
    attack = ATTACKS.get(scenario.attack.kind)
    if attack is not None and issubclass(attack.kind, Colluding):
        problems.append(
            f'attack.kind: "{scenario.attack.kind}" is not supported with strategy.name = "{name}": the '
            f"update that its colluders would forge has no counterpart in {entry.sends}"
        )
    unprotected = f"strategy.name: each client of {name} sends {entry.sends}, which"
    if scenario.secure.aggregation:
        problems.append(
            f"{unprotected} secure.aggregation does not mask: use another strategy, or set it to false"
        )
    if mechanism_of(scenario.privacy).guarantees:
        problems.append(
            f'{unprotected} has no noise, so that privacy.unit = "{scenario.privacy.unit}" would not hold: '
            "use another strategy"
        )
    return problems


def _deep_check(scenario: Scenario, say: Callable[[str], object] | None) -> list[str]:
    """Load the data, partition it, fit the preprocessing and build the model as a run would."""
    from shoal.simulations import datasets

    population = datasets.load_population(scenario)
    if say is not None:
        for note in getattr(population, "notes", ()):
            say(note)
    clients = len(population)
    problems = [
        f"strategy.{key} = {size} is more than the {clients} clients in the data: lower it"
        for key, size in (
            ("clients_per_round", scenario.strategy.clients_per_round),
            ("evaluate_clients", scenario.strategy.evaluate_clients),
        )
        if size > clients
    ]
    if scenario.preprocessing.min_sites > clients:
        problems.append(
            f"preprocessing.min_sites = {scenario.preprocessing.min_sites} is more than the "
            f"{clients} clients in the data, so every statistic would be discarded: lower it, "
            "or add clients"
        )
    problems += secure_cohort_problems(scenario, scenario.strategy.clients_per_round or clients)
    protection(population.schema, scenario)  # raises for columns whose statistics cannot take noise
    if problems or sum(population.rows(client) for client in range(clients)) > _CHEAP_ROWS:
        return problems

    from shoal.clients.preprocessing.statistics import local_statistics
    from shoal.clients.shard import split
    from shoal.common import models
    from shoal.server.preprocessing import fit as preprocessing
    from shoal.simulations.attacks.adversary import make_adversary
    from shoal.simulations.trial import try_out

    make_adversary(scenario, population)  # raises if the attack does not fit the data
    schema = population.schema
    parts = (
        split(population.shard(client), scenario.data, scenario.seed, client) for client in range(clients)
    )
    statistics = [local_statistics(part["train"], schema, scenario.preprocessing) for part in parts]
    spec = preprocessing.fit(statistics, schema, scenario.preprocessing)
    model = models.build(scenario.model, spec.input_spec, schema.num_classes, seed=scenario.seed)
    models.compile_model(model, scenario.training, schema.task)
    try_out(scenario, schema, spec)
    return []
