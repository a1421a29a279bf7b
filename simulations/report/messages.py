"""Tables of the messages to clients: traffic by phase, and failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.simulations.results.text import count, duration, size

if TYPE_CHECKING:
    import pyarrow as pa

MOST_FAILURES = 50


def traffic_by_phase(clients: pa.Table) -> list[dict[str, str]]:
    """Return the traffic of each phase, per message and in total."""
    grouped = clients.group_by("phase").aggregate(
        [("bytes_up", "sum"), ("bytes_down", "sum"), ("seconds", "sum"), ("client", "count")]
    )
    return [
        {
            "phase": row["phase"],
            "messages": count(row["client_count"]),
            "up_each": size(row["bytes_up_sum"] / row["client_count"]),
            "down_each": size(row["bytes_down_sum"] / row["client_count"]),
            "up": size(row["bytes_up_sum"]),
            "down": size(row["bytes_down_sum"]),
            "seconds": duration(row["seconds_sum"] / row["client_count"]),
        }
        for row in grouped.to_pylist()
    ]


def failures(clients: pa.Table) -> dict[str, Any]:
    """Return the messages without a result, grouped by error, the most frequent first."""
    import pyarrow.compute as pc

    failed = clients.filter(pc.not_equal(clients["error"].cast("string"), ""))
    if not failed.num_rows:
        return {"count": "0", "of": count(clients.num_rows), "rows": [], "left_out": 0}
    grouped = failed.group_by(["phase", "error"]).aggregate(
        [("round", "min"), ("round", "max"), ("client", "count"), ("name", "distinct")]
    )
    rows = sorted(grouped.to_pylist(), key=lambda row: -row["client_count"])
    return {
        "count": count(failed.num_rows),
        "of": count(clients.num_rows),
        "rows": [
            {
                "phase": row["phase"],
                "error": row["error"],
                "times": count(row["client_count"]),
                "rounds": _range(row["round_min"], row["round_max"]),
                "names": _some(sorted(row["name_distinct"])),
            }
            for row in rows[:MOST_FAILURES]
        ],
        "left_out": max(0, len(rows) - MOST_FAILURES),
    }


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
