"""Checks across the sections of a scenario that need neither the data nor a registry."""

from __future__ import annotations

import re
from pathlib import Path

from shoal.common.config import TASK_METRICS, Scenario
from shoal.common.errors import nearest


def cross_problems(scenario: Scenario) -> list[str]:
    """Return one line for each conflict between keys of different sections."""
    return [
        *_path_problems(scenario),
        *_column_problems(scenario),
        *_metric_problems(scenario),
        *_training_problems(scenario),
        *_cohort_problems(scenario),
        *_transport_problems(scenario),
        *_cluster_problems(scenario),
    ]


def pilot_problems(scenario: Scenario) -> list[str]:
    """Return one line for each setting that is allowed in a simulation but not with real sites."""
    if scenario.attack.kind == "none":
        return []
    return [
        f'attack.kind = "{scenario.attack.kind}": attacks run in simulations only, never at a real site: '
        "remove [attack] from the scenario"
    ]


def _transport_problems(scenario: Scenario) -> list[str]:
    resources = scenario.resources
    if resources.transport == "direct":
        return []
    problems = []
    if resources.backend == "serial":
        problems.append('resources.transport: "grpc" runs clients in Ray: set resources.backend to "ray"')
    if resources.gpus_per_worker:
        problems.append('resources.gpus_per_worker: not supported with transport = "grpc" yet: set it to 0')
    return problems


def _cluster_problems(scenario: Scenario) -> list[str]:
    address, backend = scenario.resources.ray_address, scenario.resources.backend
    if not address:
        return []
    problems = []
    if backend == "serial":
        problems.append(
            'resources.ray_address: backend = "serial" does not use Ray: set resources.backend to "ray"'
        )
    if address != "auto" and not re.fullmatch(r"[^:/\s]+:\d+", address):
        problems.append(f'resources.ray_address: expected host:port or auto, got "{address}"')
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
            problems.append(f'data.include names "{column}", which is data.{key}: remove it, it is no input')
    if data.label is not None and data.label == data.client_column:
        problems.append(f'data.label and data.client_column are both "{data.label}"')
    if data.text_column is not None and data.text_column in (*data.exclude, data.label):
        problems.append(f'data.text_column "{data.text_column}" is excluded or is the label')
    if data.positive is not None and data.task in ("multiclass", "regression"):
        problems.append(
            f'data.positive makes the task binary, but data.task is "{data.task}": remove one of them'
        )
    return problems


def _metric_problems(scenario: Scenario) -> list[str]:
    task, training = scenario.data.task, scenario.training
    if scenario.data.positive is not None:
        task = "binary"
    problems = []
    fitting = TASK_METRICS.get(task)  # None while the task is "auto": it then depends on the data
    named = [*(("metrics", name) for name in training.metrics), ("monitor", training.monitor)]
    for key, name in named:
        if fitting is not None and name != "auto" and name not in fitting:
            problems.append(
                f'training.{key}: "{name}" does not fit a {task} task; use one of '
                f"{', '.join(sorted(fitting))}"
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
            "the start of the schedule"
        )
    if training.early_stopping.patience and not scenario.data.validation_fraction:
        problems.append(
            f"training.early_stopping.patience = {training.early_stopping.patience} needs "
            "validation rows, but data.validation_fraction is 0: raise it"
        )
    if training.class_weights == "balanced" and scenario.data.task == "regression":
        problems.append('training.class_weights = "balanced" needs classes, but the task is regression')
    return problems


def _cohort_problems(scenario: Scenario) -> list[str]:
    clients, strategy = scenario.partition.clients, scenario.strategy
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
            f"partition.clients = {clients}, so every statistic would be discarded: lower it or add clients"
        )
    return problems
