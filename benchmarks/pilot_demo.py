"""`make pilot-demo`: a pilot with a site that is killed on the way, beside the simulation of the same sites.

A server and three sites run as processes over mutual TLS, with the commands of docker-compose.yml.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from benchmarks.compose import Composed
from shoal.clients.pilot.site_data import load_site, read_schema
from shoal.common.config import Scenario
from shoal.common.schema import Schema, Shard
from shoal.simulations import datasets
from shoal.simulations.results import RunFolder
from shoal.simulations.run import run_scenario


class SitesOfFiles:
    """A population whose clients are the files that `shoal split` has written."""

    def __init__(self, folder: Path, names: list[str], scenario: Scenario) -> None:
        self.schema: Schema = read_schema(folder / "schema.json")
        self._shards = [load_site(folder / f"{name}.csv", self.schema, scenario) for name in names]
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, client: int) -> str:
        """Return the client's name."""
        return self._names[client]

    def rows(self, client: int) -> int:
        """Return how many rows it has."""
        return self._shards[client].rows

    def shard(self, client: int) -> Shard:
        """Return its rows."""
        return self._shards[client]


def simulate(folder: Path, names: list[str], scenario: Scenario) -> RunFolder:
    """Run a scenario over the sites' files in this process."""
    population = SitesOfFiles(folder, names, scenario)
    with patch.object(datasets, "load_population", lambda scenario: population):
        return RunFolder(run_scenario(scenario))


def pilot(composed: Composed, say: Callable[[str], None]) -> RunFolder:
    """Run the pilot of the compose file, kill a site after a third of the rounds, and start it again."""
    composed.up("server", "svi", "svhc", "stmw")
    say("a server and three sites have started; the sites dial in")
    killed = False
    while composed.running["server"].poll() is None:
        time.sleep(0.05)
        run = next((composed.folder / "runs").glob("*/events.jsonl"), None)
        if run is not None and not killed:
            folder = RunFolder(run.parent)
            done = len(folder.round_rows()) - 1
            if done > 0 and done >= folder.scenario().training.rounds // 3:
                composed.kill("svhc")
                say(f"site SVHC killed after round {done}, and started again")
                composed.start("svhc")
                killed = True
    for name in ("server", "svi", "svhc", "stmw"):
        composed.wait(name)
    (events,) = (composed.folder / "runs").glob("*/events.jsonl")
    return RunFolder(events.parent)


def differences(one: RunFolder, other: RunFolder) -> list[str]:
    """Return the names of the results in which two runs differ in any digit."""
    parts: dict[str, Callable[[RunFolder], object]] = {
        "metrics of a round": lambda run: [row.metrics for row in run.round_rows()],
        "losses of a round": lambda run: [row.train_loss for row in run.round_rows()],
        "rows of a round": lambda run: [row.examples for row in run.round_rows()],
        "tests of a site": lambda run: [(row.name, row.tests) for row in run.sites()],
    }
    # repr has each digit, and of NaN it says that it is one
    return [name for name, part in parts.items() if repr(part(one)) != repr(part(other))]


def main() -> None:
    """Run both, compare, and say where the report is."""
    given = ["--set", "resources.backend=serial", "--set", "output.compare=false"]
    with TemporaryDirectory(prefix="shoal-pilot-") as name:
        composed = Composed(Path(name), {"serve": given, "client": given})
        try:
            run = pilot(composed, lambda text: print(text, flush=True))
        finally:
            composed.close()
        print("the pilot is over; now the simulation of the same three sites", flush=True)
        scenario = run.scenario()
        output = scenario.output.model_copy(update={"directory": f"{name}/simulated"})
        simulated = simulate(
            Path(name) / "runs/pilot/sites",
            ["SVI", "SVHC", "STMW"],
            scenario.model_copy(update={"output": output}),
        )
        found = differences(run, simulated)
        if found:
            sys.exit(f"they differ in {', '.join(found)}")
        print("both have the same results to the last digit")
        kept = Path("runs")
        kept.mkdir(exist_ok=True)
        run.path.rename(kept / run.name)
        print(f"Report: {kept / run.name / 'report.html'}")


if __name__ == "__main__":
    main()
