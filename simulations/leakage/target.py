"""Opens a finished run as the target of attacks: its model, its training rows and its held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.clients.shard import split_indices
from shoal.common.config import Scenario
from shoal.common.errors import RunError, nearest
from shoal.common.events import SiteRow
from shoal.common.keras_loading import load_keras
from shoal.common.schema import Population, Split
from shoal.common.seeds import generator
from shoal.common.weights import Weights
from shoal.simulations import datasets
from shoal.simulations.predict import load_model
from shoal.simulations.results import RunFolder

_MOST_CLIENTS: Final = 1_000  # if there are more, a random sample of this size
_LOSS_TOLERANCE: Final = 0.01  # relative; other processors and batch sizes round differently


@dataclass(frozen=True, slots=True)
class Released:
    """The final model of a run: its preprocessing and its weights."""

    spec_json: str
    weights: list[Weights]


@dataclass(frozen=True, slots=True)
class Target:
    """A run under attack.

    Attributes:
        run: its folder; scenario: its config; population: its clients.
        clients: indices of the clients whose rows are attacked.
        released: the model of the best round, from model.keras.
        seed: of the audit's own draws.
    """

    run: RunFolder
    scenario: Scenario
    population: Population
    clients: Sequence[int]
    released: Released
    seed: int

    def splits(self, client: int) -> dict[Split, NDArray[np.int64]]:
        """Return a client's training, validation and held-out rows in the run."""
        labels = self.population.shard(client).labels
        return split_indices(labels, self.scenario.data, self.scenario.seed, client)


def open_target(run: RunFolder, names: Sequence[str], seed: int | None) -> Target:
    """Open a finished run of a simulation.

    Args:
        run: its folder; names: clients to attack, empty for all (of very many, a random sample).
        seed: of the audit; `None` means the run's.

    Raises:
        RunError: the run is not finished, its rows are elsewhere or have changed, or a client is unknown.
    """
    _check_over(run)
    scenario = run.scenario()
    population = datasets.load_population(scenario)
    if population.schema.to_json() != _text(run.path / "schema.json"):
        raise _changed(run, "the columns or classes differ")
    load_keras()
    seed = scenario.seed if seed is None else seed
    target = Target(run, scenario, population, _clients(population, names, seed), _released(run), seed)
    _check_same_rows(target)
    return target


def outputs(runtime: ClientRuntime, released: Released, client: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels (rows,) and predictions (rows, outputs) of all rows of a client, in the shard's order."""
    shard = runtime.population.shard(client)
    runtime.use_preprocessing(released.spec_json)
    x = runtime.encoder.encode(shard.columns)
    return shard.labels, runtime.trainer.evaluate(released.weights, x, shard.labels)[0]


def _check_over(run: RunFolder) -> None:
    status = run.status()
    if (run.path / "clients.json").exists():
        raise RunError(
            f"{run.name} is a pilot: attacks need its rows, which are at the sites",
            hint="audit a simulated run of the same scenario",
        )
    if status not in ("finished", "stopped early"):
        ending = "wait for its end" if status == "running" else f"shoal resume {run.path}"
        raise RunError(f"{run.name} is {status}: only a finished run can be attacked", hint=ending)
    for name in ("model.keras", "preprocessing.json", "schema.json"):
        if not (run.path / name).exists():
            raise RunError(f"{run.path} lacks {name}, which every finished run has")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _changed(run: RunFolder, what: str) -> RunError:
    return RunError(
        f"the data have changed since {run.name}: {what}",
        hint="restore the data, or run the scenario again and attack the new run",
    )


def _clients(population: Population, names: Sequence[str], seed: int) -> Sequence[int]:
    if names:
        index = {population.name(client): client for client in range(len(population))}
        return sorted({_index(index, name) for name in names})
    if len(population) <= _MOST_CLIENTS:
        return range(len(population))
    drawn = generator(seed, "audit").choice(len(population), _MOST_CLIENTS, replace=False)
    return sorted(int(client) for client in drawn)


def _index(index: dict[str, int], name: str) -> int:
    if name not in index:
        near = nearest(name, index)
        raise RunError(
            f'the run has no client "{name}"' + (f', did you mean "{near}"?' if near else ""),
            hint=f"its {len(index)} clients: {', '.join(list(index)[:20])}{' …' if len(index) > 20 else ''}",
        )
    return index[name]


def _released(run: RunFolder) -> Released:
    """Read the trained model from model.keras, without its preprocessing layers."""
    whole = load_model(run.path)
    from shoal.common.preprocessing.layers import without_preprocessing  # TensorFlow takes seconds to import

    try:
        trained = without_preprocessing(whole)
    except ValueError as error:
        raise RunError(f"{run.path / 'model.keras'} is not a model written by a run") from error
    return Released(_text(run.path / "preprocessing.json"), trained.get_weights())


def _check_same_rows(target: Target) -> None:
    """Compare the rows with the run's records: their numbers, and the loss of the tested model."""
    runtime = ClientRuntime(target.scenario, target.population)
    recorded = {site.client: site for site in target.run.sites()}
    for client in target.clients:
        if client in recorded:
            _check_site(target, runtime, recorded[client])


def _check_site(target: Target, runtime: ClientRuntime, site: SiteRow) -> None:
    if site.client >= len(target.population):
        raise _changed(target.run, f"{site.name} no longer exists")
    splits = target.splits(site.client)
    now = len(splits["train"]), len(splits["test"])
    if site.train_rows and now != (site.train_rows, site.test_rows):
        raise _changed(
            target.run,
            f"{site.name} had {site.train_rows} training and {site.test_rows} test rows, "
            f"and now has {now[0]} and {now[1]}",
        )
    before = site.tests.get("federated", {}).get("loss")
    if before is None or not np.isfinite(before.value):
        return
    runtime.use_preprocessing(target.released.spec_json)
    test = runtime.rows(site.client)["test"]
    loss = runtime.trainer.evaluate(target.released.weights, test.x, test.y)[1]
    if not np.isclose(loss, before.value, rtol=_LOSS_TOLERANCE, atol=1e-6):
        raise _changed(
            target.run,
            f"the model's loss on the test rows of {site.name} was {before.value:.4g} and is now {loss:.4g}",
        )
