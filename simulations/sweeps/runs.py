"""Runs of one scenario with several settings: the cells of a table.

Each cell is an ordinary run folder in one folder. Finished cells are not repeated, so a table that was killed
can be continued; a cell that fails is reported and does not affect the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError, ShoalError
from shoal.simulations.checks.scenario import validate
from shoal.simulations.results import RunFolder, list_folders
from shoal.simulations.results.text import duration

_ENDED: Final = ("finished", "stopped early")
_TO_GO_ON: Final = ("killed", "interrupted")


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a table.

    Attributes:
        name: unique in the table, valid as a folder name; settings: `key=value` overrides of the scenario.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a cell: its run, or the error."""

    cell: Cell
    run: RunFolder | None
    error: str = ""


def load_cells(source: str, cells: Sequence[Cell], settings: Sequence[str]) -> list[Scenario]:
    """Return the scenario of each cell, all checked before the first one runs.

    Args:
        source: scenario file or built-in name; settings: overrides of all cells.

    Raises:
        ConfigError: with the problems of all cells.
    """
    loaded, problems = [], []
    for cell in cells:
        try:
            scenario = load_scenario(source, [*settings, *cell.settings])
        except ConfigError as error:
            problems += [f"{cell.name}: {problem}" for problem in error.problems]
            continue
        problems += [f"{cell.name}: {problem}" for problem in validate(scenario, deep=False)]
        loaded.append(scenario.model_copy(update={"name": f"{scenario.name}-{cell.name}"}))
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), source=source)
    return loaded


def run_cells(
    cells: Sequence[Cell], scenarios: Sequence[Scenario], folder: Path, say: Callable[[str], None]
) -> list[Done]:
    """Run the cells that are not finished yet, one after another.

    Args:
        cells: of the table; scenarios: theirs, as `load_cells` returned them.
        folder: gets a run folder per cell; say: called with a message on each cell.
    """
    done = []
    for number, (cell, scenario) in enumerate(zip(cells, scenarios, strict=True), start=1):
        started = time.monotonic()
        try:
            found = Done(cell, finished_run(scenario, folder))
        except ShoalError as error:
            found = Done(cell, None, f"{type(error).__name__}: {error.message}")
        said = "done" if found.run is not None else " ".join(found.error.split())
        say(f"[{number}/{len(cells)}] {cell.name}: {said}  {duration(time.monotonic() - started)}")
        done.append(found)
    return done


def finished_run(scenario: Scenario, folder: Path) -> RunFolder:
    """Return a finished run of a scenario in a folder: an existing, a resumed, or a new one.

    Raises:
        ShoalError: the run failed.
    """
    from shoal.simulations.run import resume_run, run_scenario  # imports Flower and Ray

    output = scenario.output.model_copy(update={"directory": str(folder)})
    scenario = scenario.model_copy(update={"output": output})
    for run in list_folders(folder):
        if _same(run.scenario(), scenario):
            if run.status() in _ENDED:
                return run
            if run.status() in _TO_GO_ON:
                resume_run(run, run.scenario())
                return run
    return RunFolder(run_scenario(scenario))


def _same(one: Scenario, other: Scenario) -> bool:
    """Whether two runs have bit-identical results: where they run and what they write may differ."""
    ignored = {"resources": True, "output": True}
    return one.model_dump(exclude=ignored) == other.model_dump(exclude=ignored)
