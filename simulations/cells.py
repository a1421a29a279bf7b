"""Runs of one scenario under several settings: the cells of a table.

Each cell is an ordinary run folder below one folder. A cell that is finished there is not run again, so that
a table that was killed goes on where it was; one that fails is told and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config import Scenario
from common.config_file import dump_toml
from common.errors import ConfigError, ShoalError
from simulations import load_scenario
from simulations.results import RunFolder, list_folders
from simulations.validation import validate


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a table.

    Attributes:
        name: unique in the table, fit for a folder; settings: `key=value` overrides of the scenario.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a cell: its run, or why there is none."""

    cell: Cell
    run: RunFolder | None
    error: str = ""


def load_cells(source: str, cells: Sequence[Cell], settings: Sequence[str], folder: Path) -> list[Scenario]:
    """Return the scenario of each cell, all checked before the first one runs.

    Args:
        source: scenario file or built-in name; settings: overrides that all cells share.
        folder: that gets a folder a cell.

    Raises:
        ConfigError: with the problems of all cells.
    """
    loaded, problems = [], []
    for cell in cells:
        place = f"output.directory={str(folder / cell.name)!r}"
        try:
            scenario = load_scenario(source, [*settings, *cell.settings, place])
        except ConfigError as error:
            problems += [f"{cell.name}: {problem}" for problem in error.problems]
            continue
        problems += [f"{cell.name}: {problem}" for problem in validate(scenario, deep=False)]
        loaded.append(scenario)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), source=source)
    return loaded


def run_cells(cells: Sequence[Cell], scenarios: Sequence[Scenario], say: Callable[[str], None]) -> list[Done]:
    """Run the cells that are not finished yet, one after another.

    Args:
        cells: of the table; scenarios: theirs, as `load_cells` returned them.
        say: is told of each cell.
    """
    from simulations.run import run_scenario  # imports Flower and Ray

    done = []
    for number, (cell, scenario) in enumerate(zip(cells, scenarios, strict=True), start=1):
        where = f"{number}/{len(cells)} {cell.name}"
        found = _finished(scenario)
        if found is not None:
            say(f"{where}: done before")
        else:
            say(f"{where}: running")
            try:
                found = RunFolder.open(run_scenario(scenario))
            except ShoalError as error:
                say(f"{where}: {type(error).__name__}: {error.message}")
                done.append(Done(cell, None, f"{type(error).__name__}: {error.message}"))
                continue
        done.append(Done(cell, found))
    return done


def _finished(scenario: Scenario) -> RunFolder | None:
    """Return a finished run of this very scenario, if there is one where it would go."""
    for run in list_folders(scenario.output.directory):
        try:
            same = dump_toml(_settled(run.scenario())) == dump_toml(_settled(scenario))
            if same and run.status() in ("finished", "stopped early"):
                return run
        except ShoalError:  # a damaged run is not this one
            continue
    return None


def _settled(scenario: Scenario) -> Scenario:
    """Return the scenario without what a run itself fills in, or what does not change a result."""
    resources = scenario.resources.model_copy(update={"path": "auto", "workers": 0, "backend": "ray"})
    return scenario.model_copy(update={"resources": resources})
