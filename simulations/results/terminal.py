"""Lists, shows and compares runs on the terminal, and rewrites reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shoal.common.config import Scenario
from shoal.common.dotted import dotted
from shoal.common.errors import ShoalError
from shoal.common.events import RoundRow
from shoal.simulations.console import make_console
from shoal.simulations.report import write_report
from shoal.simulations.report.verdict import verdict_of
from shoal.simulations.results import RunFolder, list_folders
from shoal.simulations.results.site_table import site_table
from shoal.simulations.results.sites import (
    higher_is_better,
    models,
    monitored_metric,
    over_sites,
    tested_metrics,
)
from shoal.simulations.results.text import NONE, count, duration, metric_name, number, signed, size

Run = RunFolder | str | Path  # a run, its path, or its name


def list_runs(directory: str | Path = "runs", console: Console | None = None) -> None:
    """Print the runs in a directory, newest last. A damaged run is a row that says so."""
    console = console or make_console()
    runs = list_folders(directory)
    if not runs:
        console.print(f"{escape(str(directory))} contains no runs; `shoal run SCENARIO` creates one.")
        return
    table = _table("run", "status", "rounds", "best", "sites' mean", "worst site", "time")
    for run in reversed(runs):
        try:
            table.add_row(escape(run.name), *_line(run))
        except (ShoalError, KeyError, TypeError, ValueError) as error:
            table.add_row(escape(run.name), f"[red]unreadable: {escape(str(error).splitlines()[0])}[/]")
    console.print(table)


def _line(run: RunFolder) -> list[str]:
    rounds, sites, training = run.round_rows(), run.sites(), run.scenario().training
    metric = _metric(run)
    across = over_sites(sites, "federated", metric) if metric else None
    best = [row for row in rounds if row.best]
    value = best[-1].metrics.get(metric) if best and metric else None
    return [
        run.status(),
        f"{rounds[-1].round if rounds else 0}/{training.rounds}",
        f"{metric_name(metric)} {number(value)}" if metric and value is not None else NONE,
        number(across.mean) if across else NONE,
        f"{escape(across.worst_site)} {number(across.worst)}" if across else NONE,
        duration(sum(row.seconds for row in rounds)),
    ]


def show_run(run: Run, directory: str | Path = "runs", console: Console | None = None) -> None:
    """Print one run: how it ended, its verdict, its key numbers, and its sites.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    console = console or make_console()
    folder = _open(run, directory)
    scenario, rounds, sites = folder.scenario(), folder.round_rows(), folder.sites()
    console.print(f"[bold]{escape(folder.name)}[/]  {folder.status()}", highlight=False)
    if scenario.description:
        console.print(escape(scenario.description), highlight=False, style="dim")
    if error := folder.summary().get("error"):
        console.print(escape(str(error)), highlight=False, style="red")
    verdict = verdict_of(scenario, folder.status(), rounds, sites)
    console.print(f"\n[bold]{escape(verdict.headline)}[/]", highlight=False)
    for sentence in verdict.sentences:
        console.print(escape(sentence), highlight=False)
    console.print()
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(folder, rounds).items():
        facts.add_row(f"[dim]{name}[/]", escape(value))
    console.print(facts)
    table = site_table(sites, scenario, console.width)
    if table is not None:
        console.print()
        console.print(table)
    console.print(f"\n[dim]{escape(str(folder.path))}[/]", highlight=False, soft_wrap=True)


def _kept(run: RunFolder, best: list[RoundRow]) -> dict[str, str]:
    """Return which round's model is kept: the best by validation, or else the last."""
    if best:
        return {"best round": str(best[-1].round)}
    kept = run.summary().get("best_round") if run.status() != "running" else None
    told = "" if kept is None else f" (no validation metric; round {kept}, the last, is kept)"
    return {"best round": f"{NONE}{told}"}


def _facts(run: RunFolder, rounds: list[RoundRow]) -> dict[str, str]:
    """Return the key numbers of a run by name."""
    scenario, metric = run.scenario(), _metric(run)
    best = [row for row in rounds if row.best]
    facts = {
        "scenario": f"{scenario.name}, {scenario.strategy.name}, {scenario.model.name}, seed {scenario.seed}",
        "rounds": f"{rounds[-1].round if rounds else 0} of {scenario.training.rounds}",
        **_kept(run, best),
    }
    if best and metric and metric in best[-1].metrics:
        facts[f"validation {metric_name(metric)}"] = number(best[-1].metrics[metric])
    facts["time in rounds"] = duration(sum(row.seconds for row in rounds))
    facts["to the server"] = size(sum(row.bytes_up for row in rounds))
    facts["to the clients"] = size(sum(row.bytes_down for row in rounds))
    facts["missing updates"] = count(sum(row.cohort - row.succeeded for row in rounds))
    return facts


def compare_runs(
    first: Run, second: Run, directory: str | Path = "runs", console: Console | None = None
) -> None:
    """Print two runs side by side: key numbers, each site, and how their configurations differ.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    console = console or make_console()
    one, two = _open(first, directory), _open(second, directory)
    console.print(_compare_facts(one, two))
    console.print()
    for table in _compare_sites(one, two):
        console.print(table)
        console.print()
    changes = list(config_differences(one.scenario(), two.scenario()))
    if not changes:
        console.print("The configurations are the same.")
        return
    table = _table("configuration", "first", "second")
    for key, left, right in changes:
        table.add_row(escape(key), escape(left), escape(right))
    console.print(table)


def _compare_facts(one: RunFolder, two: RunFolder) -> Table:
    table = _table("", "first", "second")
    table.add_row("run", escape(one.name), escape(two.name))
    table.add_row("status", one.status(), two.status())
    left, right = _facts(one, one.round_rows()), _facts(two, two.round_rows())
    for name in {**left, **right}:
        table.add_row(name, escape(left.get(name, NONE)), escape(right.get(name, NONE)))
    left_sites, right_sites = one.sites(), two.sites()
    shared = [name for name in tested_metrics(left_sites) if name in tested_metrics(right_sites)]
    for metric in shared:
        for model in [m for m in models(left_sites) if m in models(right_sites)]:
            a, b = over_sites(left_sites, model, metric), over_sites(right_sites, model, metric)
            name = f"{model} {metric_name(metric)}"
            for label in ("mean", "worst", "spread"):
                values = [number(getattr(across, label)) if across else NONE for across in (a, b)]
                table.add_row(f"{name}, {label}", *values)
    return table


def _compare_sites(one: RunFolder, two: RunFolder) -> Iterator[Table]:
    """Yield the table of the sites that both runs tested, by name, if there are any."""
    metric = _metric(one)
    left = {row.name: row for row in one.sites()}
    right = {row.name: row for row in two.sites()}
    shared = [name for name in left if name in right]
    if metric is None or not shared:
        return
    better = "higher" if higher_is_better(metric) else "lower"
    table = _table(
        f"site: federated {metric_name(metric)}, {better} is better", "first", "second", "difference"
    )
    for name in shared:
        a, b = (rows[name].tests.get("federated", {}).get(metric) for rows in (left, right))
        change = signed(b.value - a.value) if a and b else NONE
        table.add_row(escape(name), number(a.value if a else None), number(b.value if b else None), change)
    yield table


def config_differences(one: Scenario, two: Scenario) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, first value, second value) for each difference; "–" means absent."""
    left, right = dotted(one.model_dump()), dotted(two.model_dump())
    for key in {**left, **right}:
        if left.get(key, NONE) != right.get(key, NONE):
            yield key, _value(left.get(key, NONE)), _value(right.get(key, NONE))


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "(none)"
    return NONE if value is None else str(value)


def rewrite_report(run: Run, directory: str | Path = "runs") -> Path:
    """Write report.html of a run again, and the tables that a killed run did not write.

    Returns:
        the path of the report.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    folder = _open(run, directory)
    folder.derive()
    return write_report(folder)


def _open(run: Run, directory: str | Path) -> RunFolder:
    return run if isinstance(run, RunFolder) else RunFolder.open(run, directory)


def _metric(run: RunFolder) -> str | None:
    tested = tested_metrics(run.sites())
    validated = {name: None for row in run.round_rows() for name in row.metrics}
    return monitored_metric(run.scenario().training, tested or list(validated))


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, name in enumerate(names):
        table.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
    return table
