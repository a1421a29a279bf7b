"""`shoal.sweep`: variants of a scenario at several seeds, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.api.result import Run
from shoal.api.running import resolved
from shoal.api.scenarios import EditableScenario
from shoal.api.surroundings import surroundings
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.simulations.results.sites import monitored_metric, over_sites, tested_metrics
from shoal.simulations.sweeps.runs import GridRun, named, progress_line, run_grid

if TYPE_CHECKING:
    import pandas as pd

    from shoal.common.events import Observer
    from shoal.simulations.engine.session import Engine


def sweep(
    scenario: str | Path | Scenario,
    cells: Mapping[str, Mapping[str, Any]],
    *,
    seeds: Sequence[int] = (1,),
    folder: str | Path | None = None,
    callbacks: Sequence[Observer] = (),
    engine: Engine | None = None,
    progress: bool = True,
    **changes: Any,
) -> Sweep:
    """Run variants of a scenario at several seeds, on workers that are started once.

    Call it again with the same arguments to go on where it was stopped: runs that have ended are not run
    again. A run that fails is in `Sweep.failed`, and the others go on.

    Args:
        scenario: name of a built-in scenario, path of a scenario file, or a scenario.
        cells: name of a variant, fit for a folder → what it changes, e.g. `{"strategy": "FedAdam"}` or
            `{"partition.alpha": 0.1}`, as in `shoal.run`.
        seeds: each cell runs once with each.
        folder: of all runs; `None` for runs/sweep-<name>.
        callbacks, engine: as in `shoal.run`.
        progress: whether to print a line for each run.
        changes: what all cells change.

    Raises:
        ConfigError: a cell cannot be run as asked; the problems of all cells, before the first run.
    """
    with surroundings():
        scenarios = _scenarios(scenario, cells, changes, engine)
        first = next(iter(scenarios.values()), None)
        if first is None or not seeds:
            raise ConfigError("cells, seeds: a sweep needs at least one of each")
        name = EditableScenario.load(scenario).name
        place = Path(folder or Path(first.output.directory) / f"sweep-{name}")
        say: Callable[[str], None] = print if progress else lambda line: None
        count, done = len(scenarios) * len(seeds), []
        for found in run_grid(scenarios, place, seeds=seeds, engine=engine, observers=callbacks):
            done.append(found)
            say(progress_line(found, len(done), count))
    return Sweep(tuple(done))


@dataclass(frozen=True, slots=True)
class Sweep:
    """The runs of a sweep.

    Attributes:
        done: what came of each cell at each seed, in the order in which they ran.
    """

    done: tuple[GridRun, ...]

    @property
    def runs(self) -> dict[tuple[str, int], Run]:
        """(cell, seed) → its run, for those that have ended well."""
        return {(one.cell, one.seed): Run(one.run.path) for one in self.done if one.run is not None}

    @property
    def failed(self) -> dict[tuple[str, int], str]:
        """(cell, seed) → why there is no run."""
        return {(one.cell, one.seed): one.reason for one in self.done if one.run is None}

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """Return one row a cell: a test metric of the federated model, over sites and then over seeds.

        Args:
            metric: by name; `None` for the one that the scenario monitors.

        Returns:
            By cell: "runs" that ended, "mean" over sites and seeds, its standard deviation over seeds
            ("std", NaN for one run), and "worst", the mean over seeds of the worst site.
        """
        import pandas as pd

        rows = []
        for (cell, seed), run in self.runs.items():
            sites = run.folder.sites()
            name = metric or monitored_metric(run.scenario.training, tested_metrics(sites))
            found = None if name is None else over_sites(sites, "federated", name)
            if found is not None:
                rows.append({"cell": cell, "seed": seed, "mean": found.mean, "worst": found.worst})
        frame = pd.DataFrame(rows, columns=["cell", "seed", "mean", "worst"])
        grouped = frame.groupby("cell", sort=False)
        return grouped.agg(
            runs=("seed", "count"), mean=("mean", "mean"), std=("mean", "std"), worst=("worst", "mean")
        )

    def __repr__(self) -> str:
        return f"<Sweep: {len(self.runs)} runs, {len(self.failed)} failed>"

    def _repr_html_(self) -> str:
        html: str = self.table().to_html(float_format="{:.3f}".format)
        return html


def _scenarios(
    source: str | Path | Scenario,
    cells: Mapping[str, Mapping[str, Any]],
    changes: Mapping[str, Any],
    engine: Engine | None,
) -> dict[str, Scenario]:
    found: dict[str, Scenario] = {}
    problems: list[str] = []
    for cell, own in cells.items():
        try:
            scenario = resolved(EditableScenario.load(source, **changes), own, engine)
            found[cell] = EditableScenario.load(named(scenario, cell)).with_()
        except ConfigError as error:
            problems += [f"{cell}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return found
