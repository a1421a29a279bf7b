"""Runs from Python: a scenario, or a model and data that are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shoal.api.result import Run
from shoal.api.scenarios import EditableScenario, new_scenario, put_changes
from shoal.api.surroundings import surroundings
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.simulations.checks.scenario import validate
from shoal.simulations.portable_model import GivenModelConfig

if TYPE_CHECKING:
    from shoal.common.events import Observer
    from shoal.common.schema import Population
    from shoal.simulations.engine.session import Engine
    from shoal.simulations.given_model import GivenModel


def run(
    scenario: str | Path | Scenario,
    *,
    set: Mapping[str, Any] | None = None,
    callbacks: Sequence[Observer] = (),
    engine: Engine | None = None,
    progress: bool = True,
    trace: bool = False,
    **changes: Any,
) -> Run:
    """Run a scenario, and return its results.

    Args:
        scenario: name of a built-in scenario, path of a scenario file, or a scenario.
        set: any keys by their dotted names, e.g. `{"strategy.args.proximal_mu": 0.1}`.
        callbacks: called while it runs; see `shoal.Callback`.
        engine: keeps its workers for the next run; `None` starts workers for this one only.
        progress: whether to print a table of rounds.
        trace: also write trace.json, where the time of each round went.
        changes: by section or keyword, as `shoal.Scenario` says: `rounds=5`, `training={"rounds": 5}`.

    Raises:
        ConfigError: the scenario cannot be run; all problems at once.
        ShoalError: what else went wrong; results up to there are in the run folder.
    """
    loaded = resolved(scenario, {**changes, **(set or {})}, engine)
    return Run(_run(loaded, None, callbacks, engine, progress, trace))


def simulate(
    *,
    model: object,
    data: object,
    label: str | None = None,
    client: str | None = None,
    strategy: str = "FedAvg",
    rounds: int = 20,
    name: str = "simulation",
    set: Mapping[str, Any] | None = None,
    callbacks: Sequence[Observer] = (),
    engine: Engine | None = None,
    progress: bool = True,
    trace: bool = False,
    **changes: Any,
) -> Run:
    """Train a model of your own on data of your own, as a federation of clients.

    Model and data may be defined in a script or a notebook: worker processes get them from here.

    Args:
        model: a function or class that builds a `keras.Model`, from (input_spec, num_classes) or fewer of
            them; a `keras.Model`, whose weights are the initial ones and whose `compile`, where it has been
            called, sets optimizer, loss and metrics; or the name of a built-in model, e.g. "mlp".
        data: a data frame of pandas, Polars or pyarrow, or a dict of arrays (rows,), with the columns
            `label` and `client`; or (x, y, clients) or (x, y) as arrays, x of (rows, features),
            (rows, steps, channels) or (rows, height, width, channels); or a function that returns one of
            these.
        label: the column to predict; client: the column that says which client a row belongs to. Both
            belong to data frames. Without clients, say how rows are spread, e.g.
            `partition={"scheme": "dirichlet", "clients": 10}`.
        strategy: how the server makes one model of many; rounds: how many.
        name: of the scenario, with which the run folder begins.
        set, callbacks, engine, progress, trace, changes: as in `run`; they count more than `compile`.

    Raises:
        ConfigError, DataError, ModelError: what was given cannot be used.
        ShoalError: what else went wrong; results up to there are in the run folder.
    """
    with surroundings():
        given = _taken(model)
        columns = {"label": label, "client_column": client}
        _refuse_columns_of_arrays(data, columns)
        table: dict[str, Any] = {
            "name": name,
            "data": {"source": "python", **{k: v for k, v in columns.items() if v is not None}},
            "model": {"name": given.name},
            "training": {"rounds": rounds, **given.training},
            "strategy": {"name": strategy},
        }
        put_changes(table, {**changes, **(set or {})})
        scenario = resolved(_with_model(new_scenario(table), given), {}, engine)
        population = _spread(data, scenario)
    return Run(_run(scenario, population, callbacks, engine, progress, trace))


def resume(
    run: Run | str | Path,
    *,
    model: object = None,
    data: object = None,
    callbacks: Sequence[Observer] = (),
    engine: Engine | None = None,
    progress: bool = True,
    backend: Literal["ray", "serial"] | None = None,
    workers: int | None = None,
) -> Run:
    """Resume a run that was stopped or killed from its last checkpoint, bit-identically.

    Args:
        run: the run, its folder, or its name in runs/.
        model, data: again, if they were given to `simulate`: no file holds them.
        callbacks, engine, progress: as in `run`.
        backend, workers: where clients run from here on; `None` as before.

    Raises:
        ConfigError: it was given model or data in Python, and they are not given again.
        RunError: the run is over, still going on, or has no checkpoint that can be used.
    """
    found = run if isinstance(run, Run) else Run(run)
    with surroundings():
        from shoal.simulations.run import resume_run

        moved = {"backend": backend, "workers": workers}
        resources = {key: value for key, value in moved.items() if value is not None}
        scenario: Scenario = found.scenario.with_(resources=resources)
        if model is not None:
            scenario = _with_model(scenario, _taken(model))
        if engine is not None:
            scenario = engine.adapted(scenario)
        population = None if data is None else _spread(data, scenario)
        with _shown(scenario, callbacks, progress) as observers:
            resume_run(found.folder, scenario, observers, population=population, engine=engine)
    return Run(found.path)


def resolved(
    source: str | Path | Scenario, changes: Mapping[str, Any], engine: Engine | None
) -> EditableScenario:
    """Return a scenario that can be run: changed, with the engine's workers, and checked.

    Raises:
        ConfigError: all problems that show without the data.
    """
    scenario = EditableScenario.load(source, **changes)
    if engine is not None:
        scenario = EditableScenario.load(engine.adapted(scenario))
    problems = validate(scenario, deep=False)
    if problems:
        raise ConfigError(problems, source="" if isinstance(source, Scenario) else str(source))
    return scenario


def _run(
    scenario: Scenario,
    population: Population | None,
    callbacks: Sequence[Observer],
    engine: Engine | None,
    progress: bool,
    trace: bool,
) -> Path:
    with surroundings(), _shown(scenario, callbacks, progress) as observers:
        from shoal.simulations.run import run_scenario  # imports Flower

        return run_scenario(scenario, observers, trace=trace, population=population, engine=engine)


@contextmanager
def _shown(scenario: Scenario, callbacks: Sequence[Observer], progress: bool) -> Iterator[Sequence[Observer]]:
    if not progress:
        yield callbacks
        return
    from shoal.simulations.progress import ProgressDisplay

    with ProgressDisplay(scenario) as display:
        yield [display, *callbacks]


def _taken(model: object) -> GivenModel:
    from shoal.simulations.given_model import take_model

    return take_model(model)


def _with_model(scenario: Scenario, given: GivenModel) -> Scenario:
    """Put a given model into a scenario that names it.

    Raises:
        ConfigError: the scenario names another.
    """
    if given.name != scenario.model.name:
        raise ConfigError(f'model: the run was of "{scenario.model.name}", this is "{given.name}"')
    if given.builder is None:
        return scenario
    return scenario.model_copy(update={"model": GivenModelConfig.of(scenario.model, given.builder)})


def _spread(data: object, scenario: Scenario) -> Population:
    from shoal.simulations.datasets.own import spread_given

    return spread_given(data, scenario, "data:")


def _refuse_columns_of_arrays(data: object, columns: Mapping[str, str | None]) -> None:
    """Refuse column names given with arrays, which have none: they would be ignored."""
    named = [key for key, value in columns.items() if value is not None]
    if isinstance(data, tuple) and named:
        raise ConfigError(
            f"{' and '.join(named)}: data are arrays, which have no columns; give (x, y, clients) alone"
        )
