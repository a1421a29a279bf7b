"""A grid of runs: cells, each a scenario, times seeds, on the workers of one engine.

Each run is an ordinary run folder below one folder. One that has ended there is not run again and one that
was killed goes on, so a grid that was stopped continues where it was. A run that fails is reported, and the
others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError, ShoalError
from shoal.common.events import Observer
from shoal.simulations.checks.scenario import validate
from shoal.simulations.results import RunFolder, list_folders
from shoal.simulations.results.text import duration

if TYPE_CHECKING:
    from shoal.simulations.engine.session import Engine

_ENDED: Final = ("finished", "stopped early")
_TO_GO_ON: Final = ("killed", "interrupted")


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a table: a scenario with some keys of its own.

    Attributes:
        name: unique in the table, valid as a folder name; settings: `key=value` overrides of the scenario.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GridRun:
    """What came of one cell at one seed.

    Attributes:
        cell: name of the cell; seed: of the run.
        run: its folder, `None` where there is none; error: why.
        seconds: that it took now, next to nothing where it had ended before.
    """

    cell: str
    seed: int
    run: RunFolder | None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """Why there is no run, as text; "" if there is one."""
        if self.error is None:
            return ""
        text = self.error.message if isinstance(self.error, ShoalError) else str(self.error)
        return f"{type(self.error).__name__}: {text}"


def load_cells(source: str, cells: Sequence[Cell], settings: Sequence[str]) -> dict[str, Scenario]:
    """Return the scenario of each cell by its name, all checked before the first one runs.

    Args:
        source: scenario file or built-in name; settings: overrides of all cells.

    Raises:
        ConfigError: with the problems of all cells.
    """
    loaded, problems = {}, []
    for cell in cells:
        try:
            scenario = load_scenario(source, [*settings, *cell.settings])
        except ConfigError as error:
            problems += [f"{cell.name}: {problem}" for problem in error.problems]
            continue
        problems += [f"{cell.name}: {problem}" for problem in validate(scenario, deep=False)]
        loaded[cell.name] = named(scenario, cell.name)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), source=source)
    return loaded


def named(scenario: Scenario, cell: str) -> Scenario:
    """Return the scenario of a cell under a name of its own, which its run folder begins with."""
    return scenario.model_copy(update={"name": f"{scenario.name}-{cell}"})


def run_grid(
    cells: Mapping[str, Scenario],
    folder: Path,
    *,
    seeds: Sequence[int] = (),
    engine: Engine | None = None,
    observers: Sequence[Observer] = (),
) -> Iterator[GridRun]:
    """Run all cells at all seeds that have not ended yet, and yield each when it has.

    Args:
        cells: scenarios by the name of their cell.
        folder: that gets a run folder for each.
        seeds: in place of the scenarios' own; none keeps these.
        engine: whose workers all runs use; `None` starts some that end with the grid.
        observers: of every run.

    Yields:
        The runs, cell after cell of the first seed, then of the next.
    """
    with _kept(engine) as running:
        for seed in seeds or (None,):
            for name, scenario in cells.items():
                used = scenario if seed is None else scenario.model_copy(update={"seed": seed})
                yield _attempt(name, used, folder, running, observers)


def progress_line(found: GridRun, number: int, count: int) -> str:
    """Return the line about one of `count` runs, number 1 being the first."""
    said = "done" if found.run is not None else " ".join(found.reason.split())
    return f"[{number}/{count}] {found.cell}, seed {found.seed}: {said}  {duration(found.seconds)}"


def _attempt(
    cell: str, scenario: Scenario, folder: Path, engine: Engine, observers: Sequence[Observer]
) -> GridRun:
    started = time.monotonic()
    run, error = None, None
    try:
        run = finished_run(scenario, folder, engine, observers)
    except Exception as fault:  # also of a plug-in: the other runs shall not be lost with it
        error = fault
    return GridRun(cell, scenario.seed, run, error, time.monotonic() - started)


def finished_run(
    scenario: Scenario, folder: Path, engine: Engine | None = None, observers: Sequence[Observer] = ()
) -> RunFolder:
    """Return a finished run of a scenario in a folder: one that is there, one that goes on, or a new one.

    Args:
        scenario: to be run; folder: whose runs are looked through.
        engine, observers: as in `run_scenario`.

    Raises:
        ShoalError: the run failed.
    """
    from shoal.simulations.run import resume_run, run_scenario  # imports Flower and Ray

    output = scenario.output.model_copy(update={"directory": str(folder)})
    scenario = scenario.model_copy(update={"output": output})
    for run in list_folders(folder):
        if run.path.name.startswith(f"{scenario.name}-") and _same(run.scenario(), scenario):
            if run.status() in _ENDED:
                return run
            if run.status() in _TO_GO_ON:
                resume_run(run, run.scenario(), observers, engine=engine)
                return run
    return RunFolder(run_scenario(scenario, observers, engine=engine))


@contextmanager
def _kept(engine: Engine | None) -> Iterator[Engine]:
    """Give an engine, which ends with the `with` block if it was made for it."""
    if engine is not None:
        yield engine
        return
    from shoal.simulations.engine.session import Engine as NewEngine  # imports Flower

    with NewEngine() as made:
        yield made


def _same(one: Scenario, other: Scenario) -> bool:
    """Whether two runs have bit-identical results: where they run and what they write may differ."""
    ignored = {"resources": True, "output": True}
    return one.model_dump(exclude=ignored) == other.model_dump(exclude=ignored)
