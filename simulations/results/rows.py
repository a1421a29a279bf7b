"""Converts `RoundRow`, `ClientRow` and `SiteRow` to JSON and tables, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from shoal.common.events import ClientRow, Interval, RoundRow, SiteRow

if TYPE_CHECKING:
    import pyarrow as pa

_CLIENT_FIELDS = tuple(f.name for f in fields(ClientRow))


def clients_to_columns(rows: Sequence[ClientRow]) -> dict[str, list[Any]]:
    """Convert rows to columns, so that field names are written once instead of once per client."""
    return {name: [getattr(row, name) for row in rows] for name in _CLIENT_FIELDS}


def clients_from_columns(columns: Mapping[str, Sequence[Any]]) -> list[ClientRow]:
    """Read what `clients_to_columns` wrote, after JSON."""
    rows = zip(*(columns[name] for name in _CLIENT_FIELDS), strict=True)
    return [_client(dict(zip(_CLIENT_FIELDS, row, strict=True))) for row in rows]


def _client(raw: dict[str, Any]) -> ClientRow:
    return ClientRow(**{**raw, "seconds": float(raw["seconds"]), "metrics": _numbers(raw["metrics"])})


def round_from_json(raw: Mapping[str, Any]) -> RoundRow:
    """Read a round from JSON."""
    return RoundRow(
        **{
            **raw,
            "learning_rate": float(raw["learning_rate"]),
            "train_loss": float(raw["train_loss"]),
            "seconds": float(raw["seconds"]),
            "metrics": _numbers(raw["metrics"]),
            "phases": _numbers(raw["phases"]),
            "epsilon": float(raw.get("epsilon", math.nan)),  # older runs do not have it
        }
    )


def site_from_json(raw: Mapping[str, Any]) -> SiteRow:
    """Read a site from JSON."""
    tests = {
        model: {name: Interval(**_numbers(interval)) for name, interval in metrics.items()}
        for model, metrics in raw["tests"].items()
    }
    return SiteRow(**{**raw, "tests": tests})


def _numbers(raw: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in raw.items()}


def round_table(rows: Sequence[RoundRow]) -> pa.Table:
    """Return one row per round; docs/report.md lists the columns."""
    import pyarrow as pa

    whole, real = pa.int64(), pa.float64()
    types = {
        "round": pa.int32(),
        "cohort": whole,
        "succeeded": whole,
        "examples": whole,
        "learning_rate": real,
        "train_loss": real,
        "best": pa.bool_(),
        "bytes_up": whole,
        "bytes_down": whole,
        "bytes_moved": whole,
        "seconds": real,
        "epsilon": real,
    }
    return pa.table(
        {
            **{name: _array([getattr(row, name) for row in rows], kind) for name, kind in types.items()},
            **_wide("seconds_", [row.phases for row in rows]),
            **_wide("metric_", [row.metrics for row in rows]),
        }
    )


def client_table(rounds: Iterable[Mapping[str, Sequence[Any]]]) -> pa.Table:
    """Return one row a message to a client; docs/report.md lists the columns.

    Args:
        rounds: the output of `clients_to_columns`, one per round. Each is converted to a table directly,
            because one row object per message would take gigabytes in a run with many clients.
    """
    import pyarrow as pa

    empty = dict.fromkeys(_CLIENT_FIELDS, ())
    tables = [_client_table(columns) for columns in (empty, *rounds)]
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()


def _client_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    import pyarrow as pa

    label = pa.dictionary(pa.int32(), pa.string())
    types = {
        "round": pa.int32(),
        "client": pa.int64(),
        "name": label,
        "phase": label,
        "examples": pa.int64(),
        "seconds": pa.float64(),
        "bytes_up": pa.int64(),
        "bytes_down": pa.int64(),
        "error": label,
    }
    return pa.table(
        {
            **{name: _array(columns[name], kind) for name, kind in types.items()},
            **_wide("metric_", [_numbers(metrics) for metrics in columns["metrics"]]),
        }
    )


def site_table(rows: Sequence[SiteRow]) -> pa.Table:
    """Return one row per site, model and metric; docs/report.md lists the columns."""
    import pyarrow as pa

    flat = [
        (r.client, r.name, r.train_rows, r.test_rows, r.positives, model, metric, i.value, i.low, i.high)
        for r in rows
        for model, metrics in r.tests.items()
        for metric, i in metrics.items()
    ]
    names: tuple[str, ...] = ("client", "name", "train_rows", "test_rows", "positives")
    names += ("model", "metric", "value", "low", "high")
    whole, text, real = pa.int64(), pa.string(), pa.float64()
    types = (whole, text, whole, whole, whole, text, text, real, real, real)
    columns = list(zip(*flat, strict=True)) if flat else [()] * len(names)
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=list(names))


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    # from_pandas=False distinguishes NaN (measured, undefined) from null (not measured).
    return pa.array(values, kind, from_pandas=False)


def _wide(prefix: str, mappings: Sequence[Mapping[str, float]]) -> dict[str, pa.Array]:
    """Return one column per name, with null where a row lacks it."""
    import pyarrow as pa

    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return {f"{prefix}{n}": _array([m.get(n) for m in mappings], pa.float64()) for n in names}
