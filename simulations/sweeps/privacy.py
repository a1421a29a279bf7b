"""The cost of differential privacy: a scenario without it, and with several budgets and units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from shoal.common.errors import RunError
from shoal.common.journal import plain, write_atomically
from shoal.simulations.report import PageSection, render_page
from shoal.simulations.report.plot import CATEGORICAL, Figure, figure, title
from shoal.simulations.results import RunFolder
from shoal.simulations.results.sites import monitored_metric, over_sites, tested_metrics
from shoal.simulations.results.text import NONE, metric_name, number
from shoal.simulations.sweeps.runs import Cell, GridRun, load_cells, progress_line, run_grid

PLAIN = "none"


@dataclass(frozen=True, slots=True)
class PrivacyTableRow:
    """One row of the table.

    Attributes:
        unit: of privacy, or "none"; budget: the allowed epsilon, infinite without privacy.
        epsilon: spent; NaN without privacy.
        mean, worst: test metric of the federated model over sites; worst_site: name of the worst.
        sites: site → test metric.
        run: folder of the run, or "" if it failed; error: the reason.
    """

    unit: str
    budget: float
    epsilon: float
    mean: float
    worst: float
    worst_site: str
    sites: dict[str, float]
    run: str
    error: str


def privacy_cells(units: Sequence[str], budgets: Sequence[float]) -> list[Cell]:
    """Return the run without privacy, and one for each unit and budget, weakest guarantee first."""
    cells = [Cell(PLAIN, ())]
    for unit in units:
        for budget in sorted(budgets, reverse=True):
            settings = (f"privacy.unit={unit}", f"privacy.epsilon={budget:g}")
            cells.append(Cell(f"{unit}-{budget:g}", settings))
    return cells


def run_privacy_table(
    source: str,
    units: Sequence[str],
    budgets: Sequence[float],
    settings: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
) -> tuple[str, list[PrivacyTableRow]]:
    """Run all cells, write table.json and table.html, and return the metric and the rows.

    Args:
        source: scenario file or built-in name; units, budgets: to try.
        settings: overrides of all runs; folder: for all output; say: called with progress messages.

    Raises:
        ConfigError: a cell is invalid. RunError: the run without privacy failed.
    """
    cells = privacy_cells(units, budgets)
    scenarios, done = load_cells(source, cells, settings), []
    for count, found in enumerate(run_grid(scenarios, folder), start=1):
        say(progress_line(found, count, len(cells)))
        done.append(found)
    first = done[0].run
    if first is None:
        raise RunError(
            f"the run without privacy failed, so nothing can be compared with it: {done[0].reason}"
        )
    metric = monitored_metric(first.scenario().training, tested_metrics(first.sites()))
    if metric is None:
        raise RunError("no site has enough test rows for a metric, so there is nothing to compare")
    rows = [_priced(one, metric) for one in done]
    content = {"scenario": Path(source).stem, "metric": metric, "settings": settings, "rows": rows}
    write_atomically(folder / "table.json", json.dumps(plain(content), indent=2))
    _write_html(folder / "table.html", Path(source).stem, metric, rows)
    return metric, rows


def _priced(done: GridRun, metric: str) -> PrivacyTableRow:
    unit, _, budget = done.cell.partition("-")
    allowed = float(budget) if budget else math.inf
    if done.run is None:
        return PrivacyTableRow(unit, allowed, math.nan, math.nan, math.nan, "", {}, "", done.reason)
    found = over_sites(done.run.sites(), "federated", metric)
    sites = {
        row.name: row.tests["federated"][metric].value
        for row in done.run.sites()
        if metric in row.tests.get("federated", {})
    }
    mean, worst, name = (
        (math.nan, math.nan, "") if found is None else (found.mean, found.worst, found.worst_site)
    )
    return PrivacyTableRow(unit, allowed, _spent(done.run), mean, worst, name, sites, str(done.run.path), "")


def _spent(run: RunFolder) -> float:
    epsilons = [row.epsilon for row in run.round_rows() if math.isfinite(row.epsilon)]
    return epsilons[-1] if epsilons else math.nan


def as_table(metric: str, rows: Sequence[PrivacyTableRow]) -> Table:
    """Return the rows for the terminal."""
    name = metric_name(metric)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("unit")
    for column in ("budget ε", "spent ε", f"mean {name}", f"worst {name}"):
        table.add_column(column, justify="right")
    table.add_column("worst site")
    for row in rows:
        budget = NONE if math.isinf(row.budget) else f"{row.budget:g}"
        shown = [number(row.mean), number(row.worst), escape(row.worst_site)]
        table.add_row(row.unit, budget, number(row.epsilon), *(shown if row.run else ["failed", "", ""]))
    return table


def _write_html(path: Path, scenario: str, metric: str, rows: Sequence[PrivacyTableRow]) -> None:
    name = metric_name(metric)
    units = list(dict.fromkeys(row.unit for row in rows if row.unit != PLAIN))
    sites = list(rows[0].sites)
    columns = ["Site", *(_label(row) for row in rows)]
    table = [[site, *(number(row.sites.get(site, math.nan)) for row in rows)] for site in sites]
    table += [["mean", *(number(row.mean) for row in rows)]]
    notes = [
        f"{name[:1].upper()}{name[1:]} of the federated model on each site's test rows, without differential "
        "privacy and with several budgets. One seed: differences of a few hundredths may be chance."
    ]
    parts = [
        PageSection("Mean over sites", figure=_figure(rows, units, name)),
        PageSection("Each site", columns=columns, rows=table),
    ]
    write_atomically(path, render_page(f"{scenario}: the cost of privacy", notes, parts))


def _label(row: PrivacyTableRow) -> str:
    return "no privacy" if row.unit == PLAIN else f"{row.unit}, ε {row.budget:g}"


def _figure(rows: Sequence[PrivacyTableRow], units: Sequence[str], name: str) -> Figure:
    """Return the mean metric over epsilon, one line per unit, and the line without privacy."""
    budgets = sorted({row.budget for row in rows if math.isfinite(row.budget)})
    traces: list[dict[str, Any]] = []
    for unit, colour in zip(units, CATEGORICAL, strict=False):
        finished = sorted((row for row in rows if row.unit == unit and row.run), key=lambda row: row.budget)
        traces.append(_line(unit, [r.budget for r in finished], [r.mean for r in finished], colour))
    ends = [budgets[0], budgets[-1]]
    dash = {"color": "var(--muted)", "width": 2, "dash": "dot"}
    traces.append(_line("no privacy", ends, [rows[0].mean] * 2, "var(--muted)") | {"line": dash})
    x = {"title": title("epsilon, weaker to the right"), "type": "log", "tickvals": budgets}
    return figure(traces, height=320, x=x, y={"title": title(name), "nticks": 6}, hovermode="x unified")


def _line(name: str, x: Sequence[float], y: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 8},
    }
