"""The per-site results as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from shoal.common.config import Scenario
from shoal.common.events import Interval, SiteRow
from shoal.simulations.results.sites import (
    higher_is_better,
    models,
    monitored_metric,
    over_sites,
    tested_metrics,
)
from shoal.simulations.results.text import MODEL_NAMES, count, interval, metric_name, number

MANY = 60  # sites; above this only the ends are shown
ENDS = 10
_WITH_INTERVALS = 110  # columns that three values with their intervals need


def site_table(rows: Sequence[SiteRow], scenario: Scenario, width: int) -> Table | None:
    """Return one row per site with the monitored metric, and the mean; `None` if nothing was tested.

    Args:
        rows, scenario: of the run.
        width: columns of the terminal; if it is narrow, the intervals are omitted.
    """
    metric = monitored_metric(scenario.training, tested_metrics(rows))
    if metric is None:
        return None
    present = models(rows)
    binary = any(row.positives >= 0 for row in rows)
    table = Table(
        title=f"{metric_name(metric)} on each site's test rows",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("site", overflow="fold")
    for name in (
        "train",
        "test",
        *(("positives",) if binary else ()),
        *(MODEL_NAMES[model] for model in present),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    value = interval if width >= _WITH_INTERVALS else _bare
    too_few = f"<{scenario.preprocessing.min_count}"
    for row in _shown(rows, metric):
        if row is None:
            table.add_row(f"… {len(rows) - 2 * ENDS} more", style="dim")
            continue
        positives = [too_few if row.positives < 0 else count(row.positives)] if binary else []
        values = [value(row.tests.get(model, {}).get(metric)) for model in present]
        table.add_row(escape(row.name), count(row.train_rows), count(row.test_rows), *positives, *values)
    means = [over_sites(rows, model, metric) for model in present]
    blank = [""] * (3 if binary else 2)
    table.add_row("mean", *blank, *(number(mean.mean if mean else None) for mean in means), style="bold")
    return table


def _bare(found: Interval | None) -> str:
    return number(found.value if found else None)


def _shown(rows: Sequence[SiteRow], metric: str) -> list[SiteRow | None]:
    """Return all rows by size, or if there are many, the worst and the best with a gap (`None`)."""
    if len(rows) <= MANY:
        by_size: list[SiteRow] = sorted(rows, key=lambda row: (-row.train_rows, row.client))
        return [*by_size]
    sign = 1 if higher_is_better(metric) else -1

    def place(row: SiteRow) -> float:
        found = row.tests.get("federated", {}).get(metric)
        return math.inf if found is None or math.isnan(found.value) else sign * found.value

    ordered = sorted(rows, key=place)
    return [*ordered[:ENDS], None, *ordered[-ENDS:]]
