"""The data overview of a run: the clients' data, from the aggregates that they reported."""

from __future__ import annotations

from shoal.common.preprocessing import Statistics
from shoal.common.schema import Population, Schema
from shoal.server.preprocessing.collect import FittedPreprocessing

_MOST_CLIENTS = 1_000  # entries in overview.json; of larger populations, only totals are given


def overview(population: Population, fitted: FittedPreprocessing) -> dict[str, object]:
    """Return the content of overview.json.

    Args:
        population: for names and the schema.
        fitted: the statistics that the clients sent; nothing else is used.
    """
    total = fitted.total
    left_out: dict[str, int] = dict(getattr(population, "left_out", {}))
    notes = [
        f"{name} has {rows} rows, fewer than partition.min_rows: left out."
        for name, rows in list(left_out.items())[:20]
    ]
    notes += [f"{note}." for note in getattr(population, "notes", ())]
    lists_all = len(population) <= _MOST_CLIENTS
    listed = list(range(len(population))) if lists_all else sorted(fitted.statistics)[:_MOST_CLIENTS]
    if not fitted.statistics:
        notes.append("Clients reported sums only, so the data of single clients are unknown.")
    elif not lists_all:
        notes.append(
            f"{len(listed)} of {len(population)} clients are listed, out of those asked for statistics."
        )
    return {
        "train_rows": total.rows,
        "clients": [_client(population, fitted, client) for client in listed],
        "columns": _columns(population.schema, total),
        "notes": notes,
    }


def _client(population: Population, fitted: FittedPreprocessing, client: int) -> dict[str, object]:
    statistics = fitted.statistics.get(client, Statistics())
    counts = statistics.classes
    labels = {
        name: counts[index] or None if counts else None
        for index, name in enumerate(population.schema.classes)
    }
    return {
        "client": client,
        "name": population.name(client),
        "rows": sum(fitted.rows.get(client, {}).values()) or None,
        "train_rows": fitted.rows.get(client, {}).get("train"),
        "labels": labels,
    }


def _columns(schema: Schema, total: Statistics) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for column in schema.columns:
        entry: dict[str, object] = dict.fromkeys(("missing_rate", "mean", "std", "categories"))
        rows = max(1, total.rows)
        if column.name in total.numeric:
            numeric = total.numeric[column.name]
            moments = numeric.moments
            entry["missing_rate"] = numeric.missing / rows
            if moments.count:
                entry |= {"mean": moments.mean, "std": moments.std}
        elif column.name in total.categorical:
            table = total.categorical[column.name]
            entry |= {"missing_rate": table.missing / rows, "categories": len(table.counts.values)}
        elif column.name in total.tokens:
            entry["categories"] = len(total.tokens[column.name].values)
        found.append({"name": column.name, "kind": column.kind, **entry})
    return found
