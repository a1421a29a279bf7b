"""The data overview: the content of overview.json as texts, table rows and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.simulations.report import figures_sites
from shoal.simulations.results.text import NONE, count, number

MOST_ROWS = 100  # of a table; for more, figures are more informative
MOST_LABELS = 12


def total_rows(overview: Mapping[str, Any]) -> str:
    """Return the number of rows of all clients, or of training rows if only their sum is known."""
    rows = sum(client.get("rows") or 0 for client in overview.get("clients") or [])
    return count(rows) if rows else f"{count(round(overview.get('train_rows') or 0))} training"


def data_section(overview: Mapping[str, Any], min_count: int) -> dict[str, Any] | None:
    """Return the section, or `None` without an overview.

    Args:
        overview: the content of overview.json; a count of `None` was too small to report.
        min_count: the smallest count that is reported.
    """
    if not overview:
        return None
    clients: Sequence[Mapping[str, Any]] = overview.get("clients") or []
    columns: Sequence[Mapping[str, Any]] = overview.get("columns") or []
    labels = list(dict.fromkeys(name for client in clients for name in client.get("labels") or {}))[
        :MOST_LABELS
    ]
    too_few = f"<{min_count}"
    return {
        "clients": len(clients),
        "rows": total_rows(overview),
        "columns_count": len(columns),
        "labels": labels,
        "table": [_client(client, labels, too_few) for client in clients[:MOST_ROWS]],
        "table_left_out": max(0, len(clients) - MOST_ROWS),
        "columns": [column_cells(column) for column in columns[:MOST_ROWS]],
        "columns_left_out": max(0, len(columns) - MOST_ROWS),
        "notes": list(overview.get("notes") or []),
        "sizes": figures_sites.sizes(clients) if clients else None,
        "balance": figures_sites.balance(clients),
        "missing": figures_sites.missing(columns),
    }


def _client(client: Mapping[str, Any], labels: Sequence[str], too_few: str) -> list[str]:
    given = client.get("labels") or {}
    counts = [
        too_few if name in given and given[name] is None else count(given.get(name) or 0) for name in labels
    ]
    return [str(client["name"]), *(count(client.get(key)) for key in ("rows", "train_rows")), *counts]


def column_cells(column: Mapping[str, Any]) -> list[str]:
    """Return the cells of one column of overview.json: name, kind, missing, mean, deviation, categories."""
    rate = column.get("missing_rate")
    return [
        str(column["name"]),
        str(column.get("kind", "")),
        NONE if rate is None else f"{rate:.1%}",
        number(column.get("mean")),
        number(column.get("std")),
        count(column.get("categories")),
    ]
