"""`shoal data`: what each client of a scenario holds, as a table and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from common.config import Scenario
from common.schema import Population, Shard
from simulations import datasets
from simulations.terminal import make_console

_MOST_SHOWN = 30  # clients in the table; the rest is summed up


@dataclass(frozen=True, slots=True)
class ClientView:
    """One client.

    Attributes:
        client, name, rows: as in `Population`.
        balance: share of each class, in class order; for regression the mean and the standard deviation.
        missing: share of values of numeric and categorical columns that are missing.
    """

    client: int
    name: str
    rows: int
    balance: tuple[float, ...]
    missing: float


def describe(population: Population, most: int = _MOST_SHOWN) -> list[ClientView]:
    """Describe the first `most` clients."""
    return [_describe_one(population, client) for client in range(min(len(population), most))]


def show(scenario: Scenario, plot: Path | None = None) -> None:
    """Print a scenario's clients; with `plot`, write them to an HTML file as well."""
    population = datasets.load_population(scenario)
    views = describe(population)
    console = make_console()
    console.print(table(population, views, scenario.name))
    left_out: dict[str, int] = getattr(population, "left_out", {})
    for name, rows in left_out.items():
        console.print(f"left out: {name} has {rows} rows, fewer than partition.min_rows")
    if plot is not None:
        plot.write_text(plot_html(population, views, scenario.name), encoding="utf-8")
        console.print(f"Plot: {plot}")


def table(population: Population, views: list[ClientView], title: str) -> Table:
    """Return the clients as a table for a terminal."""
    found = Table(title=f"{title}: {len(population):,} clients", title_justify="left")
    for heading in ("client", "rows", *_balance_names(population), "missing"):
        found.add_column(heading, justify="left" if heading == "client" else "right", no_wrap=True)
    share = "{:.1%}" if population.schema.classes else "{:.3g}"
    for view in views:
        balance = [share.format(part) for part in view.balance]
        found.add_row(view.name, f"{view.rows:,}", *balance, f"{view.missing:.1%}")
    if len(population) > len(views):
        found.caption = f"and {len(population) - len(views):,} more"
    return found


def plot_html(population: Population, views: list[ClientView], title: str) -> str:
    """Return a self-contained page with the rows of each class at each client."""
    import plotly.graph_objects as go  # plotly takes a second to import

    names = [view.name for view in views]
    figure = go.Figure()
    if population.schema.classes:
        for index, label in enumerate(population.schema.classes):
            figure.add_bar(x=names, y=[view.rows * view.balance[index] for view in views], name=label)
    else:
        figure.add_bar(x=names, y=[view.rows for view in views], name="rows")
    figure.update_layout(
        barmode="stack", title=f"{title}: rows by client", yaxis_title="rows", xaxis_type="category"
    )
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


def _balance_names(population: Population) -> tuple[str, ...]:
    label = population.schema.label
    return population.schema.classes or (f"mean {label}", f"std {label}")


def _describe_one(population: Population, client: int) -> ClientView:
    shard = population.shard(client)
    classes = population.schema.num_classes
    if classes:
        counts = np.bincount(shard.labels, minlength=classes)
        balance = tuple((counts / shard.rows).tolist())
    else:
        balance = (float(shard.labels.mean()), float(shard.labels.std()))
    return ClientView(client, population.name(client), shard.rows, balance, _missing(population, shard))


def _missing(population: Population, shard: Shard) -> float:
    rates = [
        np.mean([v is None or v != v for v in shard.columns[column.name].tolist()])
        for column in population.schema.columns
        if column.kind in ("numeric", "categorical")
    ]
    return float(np.mean(rates)) if rates else 0.0
