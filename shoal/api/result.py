"""`Run`: the results of a run as data frames, its model and its report."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.api.scenarios import EditableScenario
from shoal.api.surroundings import surroundings
from shoal.common.errors import RunError
from shoal.simulations.results import RunFolder
from shoal.simulations.results.sites import models, monitored_metric, over_sites, tested_metrics
from shoal.simulations.results.text import metric_name, number

if TYPE_CHECKING:
    import keras
    import pandas as pd
    import pyarrow as pa


class Run:
    """A run that has been, from the files in its folder: the same that the command line writes and reads.

    Args:
        folder: path of the run folder, or its name in `directory`.
        directory: where runs are.

    Raises:
        RunError: there is no such run.
    """

    def __init__(self, folder: str | Path, directory: str | Path = "runs") -> None:
        self.folder = RunFolder.open(folder, directory)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.folder.name

    @property
    def status(self) -> str:
        """How the run ended: "finished", "stopped early", "interrupted", "failed", "killed"; or "running"."""
        return self.folder.status()

    @property
    def scenario(self) -> EditableScenario:
        """What was run, with all defaults."""
        return EditableScenario.load(self.folder.scenario())

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds; empty before the run has ended."""
        return self.folder.summary()

    @property
    def rounds(self) -> pd.DataFrame:
        """One row a round, 0 for the initial model; metrics are columns `metric_…`."""
        return _frame(self.folder.rounds())

    @property
    def clients(self) -> pd.DataFrame:
        """One row for each message to a client; metrics are columns `metric_…`."""
        return _frame(self.folder.clients())

    @property
    def sites(self) -> pd.DataFrame:
        """The final test: one row a client, model and metric, with the 95 % interval `low` to `high`."""
        from shoal.simulations.results.rows import site_table

        return _frame(site_table(self.folder.sites()))

    @cached_property
    def model(self) -> keras.Model:
        """The model of the best round; it takes raw columns, as preprocessing is inside.

        Raises:
            RunError: the run left none.
        """
        from shoal.simulations.predict import load_model

        with surroundings():
            return load_model(self.path)

    def predict(self, rows: Any) -> pd.DataFrame:
        """Predict for raw rows.

        Args:
            rows: a data frame or a dict of arrays with the run's input columns, of which others are
                ignored; or an array (rows, ...) as the run was given, without column names.

        Returns:
            One row a row, with the index of a pandas frame: the column "prediction", and "probability
            of …" for classes.

        Raises:
            RunError: the run left no model; DataError: a column is missing or has other values.
        """
        from shoal.simulations.predict import predict_given

        with surroundings():
            found = _frame(predict_given(self.path, self.model, rows))
        if type(rows).__module__.partition(".")[0] == "pandas":
            found.index = rows.index
        return found

    def report(self) -> Path:
        """Return the path of report.html, which is written if it is not there."""
        path = self.path / "report.html"
        if not path.exists():
            from shoal.simulations.report import write_report

            self.folder.derive()
            write_report(self.folder)
        return path

    def compare(self, other: Run) -> pd.DataFrame:
        """Return key numbers of two runs side by side, and the difference (other less this).

        Test metrics are the mean over sites and the worst site, for each model that both runs tested.
        `differences` says how the runs were configured differently.
        """
        import pandas as pd

        mine, theirs = _numbers(self.folder), _numbers(other.folder)
        shared = [key for key in mine if key in theirs]
        values = {"this": [mine[key] for key in shared], "other": [theirs[key] for key in shared]}
        table = pd.DataFrame(values, index=pd.Index(shared, name="number"))
        return table.assign(difference=table["other"] - table["this"])

    def differences(self, other: Run) -> pd.DataFrame:
        """Return the keys of the two scenarios that differ, with both values as text."""
        import pandas as pd

        from shoal.simulations.results.terminal import config_differences

        rows = list(config_differences(self.folder.scenario(), other.folder.scenario()))
        return pd.DataFrame(rows, columns=["key", "this", "other"]).set_index("key")

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Run {self.name}: {facts}>"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks; it needs nothing from elsewhere."""
        facts = {**self._facts(), "folder": str(self.path)}
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in facts.items()
        )
        return f"<table><caption>Run {escape(self.name)}</caption>{rows}</table>"

    def _facts(self) -> dict[str, str]:
        scenario, rounds, sites = self.folder.scenario(), self.folder.round_rows(), self.folder.sites()
        done = max((row.round for row in rounds), default=0)
        facts = {"status": self.status, "rounds": f"{done} of {scenario.training.rounds}"}
        metric = monitored_metric(scenario.training, tested_metrics(sites))
        found = None if metric is None else over_sites(sites, "federated", metric)
        if metric is not None and found is not None:
            shown = f"{number(found.mean)} mean, {number(found.worst)} worst ({found.worst_site})"
            facts[f"test {metric_name(metric)}"] = f"{shown} of {found.sites} sites"
        if error := self.summary.get("error"):
            facts["error"] = str(error)
        return facts


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _numbers(folder: RunFolder) -> dict[str, float]:
    rounds, sites = folder.round_rows(), folder.sites()
    if not rounds:
        raise RunError(f"{folder.name} has no round that could be compared")
    found: dict[str, float] = {
        "rounds": rounds[-1].round,
        "seconds": sum(row.seconds for row in rounds),
        "bytes_up": sum(row.bytes_up for row in rounds),
        "bytes_down": sum(row.bytes_down for row in rounds),
    }
    for metric in tested_metrics(sites):
        for model in models(sites):
            if (over := over_sites(sites, model, metric)) is not None:
                found[f"{model} {metric}, mean"] = over.mean
                found[f"{model} {metric}, worst"] = over.worst
    return found
