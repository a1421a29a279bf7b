"""The page of `shoal data --plot`: what the first clients of a population hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shoal.common.journal import write_atomically
from shoal.common.schema import Population, Schema
from shoal.simulations.datasets.view import ClientView, describe
from shoal.simulations.report import PageSection, render_page
from shoal.simulations.report.plot import CATEGORICAL, Figure, figure, label, title

_SHOWN: Final = 60  # clients


def write_population_page(name: str, population: Population, path: Path) -> None:
    """Write the page, and the folder that it is to be in; it needs no network.

    Args:
        name: of the scenario; population: whose first clients are shown; path: the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    views = describe(population, _SHOWN)
    write_atomically(path, population_page(name, views, len(population), population.schema))


def population_page(name: str, views: Sequence[ClientView], clients: int, schema: Schema) -> str:
    """Return the page as one HTML document.

    Args:
        name: of the scenario; views: of the clients that are shown; clients: number of all.
        schema: what a row looks like.
    """
    parts = [_labels(views, schema)]
    if any(view.missing_rate for view in views):
        parts.append(_missing(views))
    shown = f"the first {len(views)} of {clients:,}" if len(views) < clients else f"{clients:,}"
    notes = [f"Clients shown: {shown}. This page needs no network."]
    return render_page(f"What the clients of {name} hold", notes, parts)


def _labels(views: Sequence[ClientView], schema: Schema) -> PageSection:
    if not schema.classes:
        return _targets(views, schema)
    bars = [
        _bars(label(name), [view.labels[index] for view in views], CATEGORICAL[index % len(CATEGORICAL)])
        for index, name in enumerate(schema.classes)
    ]
    shape = _figure(bars, views, "rows", barmode="stack")
    cells = [[view.name, f"{view.rows:,}", *(f"{count:,}" for count in view.labels)] for view in views]
    return PageSection("Rows by class", "", shape, ("Client", "Rows", *schema.classes), cells)


def _targets(views: Sequence[ClientView], schema: Schema) -> PageSection:
    means = [view.mean or 0.0 for view in views]
    spreads = [view.std or 0.0 for view in views]
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": label(schema.label),
        "y": means,
        "error_y": {"type": "data", "array": spreads, "color": "var(--federated)"},
        "marker": {"color": "var(--federated)", "size": 8},
    }
    numbers = zip(views, means, spreads, strict=True)
    cells = [[view.name, f"{view.rows:,}", f"{mean:.4g}", f"{std:.4g}"] for view, mean, std in numbers]
    columns = ("Client", "Rows", "Mean", "Standard deviation")
    shape = _figure([points], views, label(schema.label))
    return PageSection("Target, mean ± standard deviation", "", shape, columns, cells)


def _missing(views: Sequence[ClientView]) -> PageSection:
    bars = _bars("missing", [view.missing_rate for view in views], "var(--neutral)")
    shape = _figure([bars], views, "share of input values", tickformat=".0%")
    cells = [[view.name, f"{view.missing_rate:.1%}"] for view in views]
    return PageSection("Share of input values that are missing", "", shape, ("Client", "Missing"), cells)


def _bars(name: str, values: Sequence[float], colour: str) -> dict[str, Any]:
    return {"type": "bar", "name": name, "y": list(values), "marker": {"color": colour}}


def _figure(
    traces: Sequence[Mapping[str, Any]],
    views: Sequence[ClientView],
    y: str,
    *,
    tickformat: str = "",
    **layout: Any,
) -> Figure:
    """Return a figure with a place for each client on the x axis."""
    # Clients stand at numbers, since names may repeat once they are cut; hovering tells the whole name.
    places = list(range(len(views)))
    names = [label(view.name, 60) for view in views]
    hover = f"<b>%{{customdata}}</b>: %{{y{':' + tickformat if tickformat else ''}}}"
    shared = {"x": places, "customdata": names, "hovertemplate": hover}
    x = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [label(view.name, 16) for view in views],
        "showgrid": False,
    }
    value = {"title": title(y), "rangemode": "tozero"} | ({"tickformat": tickformat} if tickformat else {})
    return figure([{**trace, **shared} for trace in traces], height=360, x=x, y=value, bargap=0.3, **layout)
