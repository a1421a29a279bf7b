"""What can be found wrong with a scenario before it is run, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, ShoalError, nearest
from shoal.common.preprocessing.sums.noise import protection
from shoal.simulations.privacy_checks import privacy_problems, secure_cohort_problems, secure_problems

# Rows of all clients up to which a deep check fits the preprocessing and builds the model.
_CHEAP_ROWS = 200_000


def validate(scenario: Scenario, deep: bool) -> list[str]:
    """Return one line for each problem of a scenario; none means that it can be run.

    Args:
        scenario: whose sections are valid in themselves.
        deep: also load the data, spread it over clients and build the model on it. Without, no
            data is read and neither TensorFlow, Ray nor Flower is imported.
    """
    problems = [*_cross_checks(scenario), *_registry_checks(scenario)]
    if not deep or problems:  # data loaded for a broken scenario would only repeat its problems
        return problems
    return _collect(_deep_check, scenario)


def check_pilot(scenario: Scenario) -> list[str]:
    """Return one line for each thing that a scenario may ask of a simulation only, not of real sites."""
    if scenario.attack.kind == "none":
        return []
    return [
        f'attack.kind = "{scenario.attack.kind}": an attack is for simulations, never for a real site: '
        "take [attack] out of the scenario"
    ]


def _registry_checks(scenario: Scenario) -> list[str]:
    from shoal.clients import attacks
    from shoal.common import models
    from shoal.server import strategies
    from shoal.simulations import datasets

    return [
        *_collect(datasets.check, scenario),
        *_collect(lambda _: models.check(scenario.model), scenario),
        *_collect(lambda _: models.check_loss(scenario.training), scenario),
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


def _cross_checks(scenario: Scenario) -> list[str]:
    """Check keys of different sections against each other."""
    return [
        *_path_problems(scenario),
        *_column_problems(scenario),
        *_metric_problems(scenario),
        *_training_problems(scenario),
        *_cohort_problems(scenario),
        *_transport_problems(scenario),
        *_cluster_problems(scenario),
        *privacy_problems(scenario),
        *secure_problems(scenario),
    ]


def _transport_problems(scenario: Scenario) -> list[str]:
    resources = scenario.resources
    if resources.transport == "direct":
        return []
    problems = []
    if resources.backend == "serial":
        problems.append('resources.transport: "grpc" has its clients in Ray: set resources.backend to "ray"')
    if resources.gpus_per_worker:
        problems.append('resources.gpus_per_worker: not to be had with transport = "grpc" yet: set it to 0')
    return problems


def _cluster_problems(scenario: Scenario) -> list[str]:
    address, backend = scenario.resources.ray_address, scenario.resources.backend
    if not address:
        return []
    problems = []
    if backend == "serial":
        problems.append(
            'resources.ray_address: backend = "serial" has no Ray: set resources.backend to "ray"'
        )
    if address != "auto" and not re.fullmatch(r"[^:/\s]+:\d+", address):
        problems.append(f'resources.ray_address: "{address}" is neither host:port nor auto')
    return problems


def _path_problems(scenario: Scenario) -> list[str]:
    data = scenario.data
    if data.path is None or ":" in data.source or Path(data.path).exists():
        return []
    folder = Path(data.path).parent
    if not folder.is_dir():
        return [f"data.path: there is no folder {folder}"]
    near = nearest(Path(data.path).name, (path.name for path in folder.iterdir()))
    guess = f". Did you mean {folder / near}?" if near else ""
    return [f"data.path: there is no file or folder {data.path}{guess}"]


def _column_problems(scenario: Scenario) -> list[str]:
    data = scenario.data
    problems = []
    if both := sorted(set(data.include) & set(data.exclude)):
        problems.append(f"data.include and data.exclude both name {', '.join(both)}")
    for key, column in (("label", data.label), ("client_column", data.client_column)):
        if column is not None and column in data.include:
            problems.append(f'data.include names "{column}", which is data.{key} and never an input')
    if data.label is not None and data.label == data.client_column:
        problems.append(f'data.label and data.client_column are both "{data.label}"')
    if data.text_column is not None and data.text_column in (*data.exclude, data.label):
        problems.append(f'data.text_column "{data.text_column}" is excluded or is the label')
    if data.positive is not None and data.task in ("multiclass", "regression"):
        problems.append(
            f'data.positive makes the task binary, but data.task is "{data.task}": drop one of them'
        )
    return problems


def _metric_problems(scenario: Scenario) -> list[str]:
    task, training = scenario.data.task, scenario.training
    if scenario.data.positive is not None:
        task = "binary"
    problems = []
    fitting = {
        "binary": {"accuracy", "auc", "f1", "loss"},
        "multiclass": {"accuracy", "f1", "loss"},
        "regression": {"loss", "mae", "mse"},
    }.get(task)  # None while the task is "auto": only the data tells
    named = [*(("metrics", name) for name in training.metrics), ("monitor", training.monitor)]
    for key, name in named:
        if fitting is not None and name != "auto" and name not in fitting:
            problems.append(
                f'training.{key}: "{name}" does not fit a {task} task; these do: {", ".join(sorted(fitting))}'
            )
    if training.metrics and training.monitor not in (*training.metrics, "auto"):
        problems.append(
            f'training.monitor "{training.monitor}" is not among training.metrics '
            f"({', '.join(training.metrics)}): add it there"
        )
    return problems


def _training_problems(scenario: Scenario) -> list[str]:
    training = scenario.training
    problems = []
    if training.local_steps is not None and training.local_epochs != 1:
        problems.append(
            f"training.local_steps = {training.local_steps} replaces training.local_epochs = "
            f"{training.local_epochs}: set only one of them"
        )
    if "learning_rate" in training.optimizer_args:
        problems.append(
            "training.optimizer_args.learning_rate: set training.learning_rate instead, "
            "which the schedule starts from"
        )
    if training.early_stopping.patience and not scenario.data.validation_fraction:
        problems.append(
            f"training.early_stopping.patience = {training.early_stopping.patience} needs "
            "validation rows, but data.validation_fraction is 0"
        )
    own_rate = "client_learning_rate" in scenario.strategy.args
    if scenario.strategy.name == "QFedAvg" and training.optimizer != "sgd" and not own_rate:
        problems.append(
            f"strategy.name: QFedAvg takes its step size from the clients' SGD, but training.optimizer is "
            f'"{training.optimizer}", with which it would hardly move: use sgd, or set '
            "strategy.args.client_learning_rate (1.0 is a start)"
        )
    if training.class_weights == "balanced" and scenario.data.task == "regression":
        problems.append('training.class_weights = "balanced" needs classes, but the task is regression')
    return problems


def _cohort_problems(scenario: Scenario) -> list[str]:
    clients, strategy = scenario.partition.clients, scenario.strategy
    if strategy.name == "FLTrust" and (strategy.clients_per_round or strategy.sampling == "poisson"):
        return [
            "strategy.name: FLTrust needs its trusted client in every round, but the cohort is drawn: set "
            'strategy.clients_per_round = 0 and strategy.sampling = "fixed"'
        ]
    if clients is None:
        return []
    drawn = (
        ("clients_per_round", strategy.clients_per_round),
        ("evaluate_clients", strategy.evaluate_clients),
    )
    problems = [
        f"strategy.{key} = {size} is more than partition.clients = {clients}"
        for key, size in drawn
        if size > clients
    ]
    if scenario.preprocessing.min_sites > clients:
        problems.append(
            f"preprocessing.min_sites = {scenario.preprocessing.min_sites} is more than "
            f"partition.clients = {clients}, so no statistic could ever be kept: lower it or add clients"
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

    from shoal.clients.attacks.adversary import make_adversary
    from shoal.clients.preprocessing.statistics import local_statistics
    from shoal.clients.shard import split
    from shoal.common import models
    from shoal.server import preprocessing

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
