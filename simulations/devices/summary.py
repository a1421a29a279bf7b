"""What a timeline says: hours, bytes, energy, who takes part, and what was wasted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.journal import write_atomically
from shoal.simulations.devices.policy import JobOutcome
from shoal.simulations.devices.profiles import Devices
from shoal.simulations.devices.timeline import Timeline
from shoal.simulations.results.text import count, duration, number, size

if TYPE_CHECKING:
    from rich.table import Table

_TRACED = 2_000  # devices in a trace: browsers show no more


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one timeline.

    Attributes:
        hours: until the last version; median_round_s, slow_round_s: median and 95 % quantile of the seconds
            between versions.
        versions, failed_rounds: made and not made; jobs: sent; used: fraction whose reply was used.
        bytes_down, bytes_up: over all jobs; kwh: energy of all devices; wasted_kwh: of jobs not used.
        took_part: devices of which a reply was used; gini: of the number of used replies over all devices
            that can hold the model, 0 if all are equal.
        staleness: mean number of versions made between a used reply's start and its use, less one.
        by_kind: class of device → (share of the devices, share of the used replies).
        excluded: devices whose memory is too small.
    """

    hours: float
    median_round_s: float
    slow_round_s: float
    versions: int
    failed_rounds: int
    jobs: int
    used: float
    bytes_down: float
    bytes_up: float
    kwh: float
    wasted_kwh: float
    took_part: int
    gini: float
    staleness: float
    by_kind: Mapping[str, tuple[float, float]]
    excluded: int


def summarise(timeline: Timeline, devices: Devices) -> Summary:
    """Return the figures of a timeline of these devices."""
    jobs = timeline.jobs
    used = jobs.outcome == JobOutcome.USED
    counts = np.bincount(jobs.device[used], minlength=timeline.devices)
    able = timeline.devices - timeline.excluded
    gaps = np.diff(timeline.versions, prepend=0.0)
    stale = jobs.made[used] - 1 - jobs.version[used]
    of_kind = np.bincount(devices.kind, minlength=len(devices.kinds)) / len(devices)
    of_used = np.bincount(devices.kind[jobs.device[used]], minlength=len(devices.kinds))
    share = of_used / max(1, of_used.sum())
    joules = timeline.joules
    return Summary(
        hours=timeline.hours,
        median_round_s=float(np.median(gaps)) if len(gaps) else np.nan,
        slow_round_s=float(np.quantile(gaps, 0.95)) if len(gaps) else np.nan,
        versions=len(timeline.versions),
        failed_rounds=timeline.failed_rounds,
        jobs=len(used),
        used=float(used.mean()) if len(used) else np.nan,
        bytes_down=float(timeline.bytes_down.sum()),
        bytes_up=float(timeline.bytes_up.sum()),
        kwh=float(joules.sum()) / 3.6e6,
        wasted_kwh=float(joules[~used].sum()) / 3.6e6,
        took_part=int((counts > 0).sum()),
        gini=gini(np.sort(counts)[timeline.excluded :]) if able else np.nan,
        staleness=float(stale.mean()) if len(stale) else np.nan,
        by_kind={kind: (float(of_kind[k]), float(share[k])) for k, kind in enumerate(devices.kinds)},
        excluded=timeline.excluded,
    )


def gini(counts: NDArray[Any]) -> float:
    """Return Gini's coefficient: 0 if all are equal, near 1 if one has all; NaN without any."""
    total = counts.sum()
    if not total:
        return float("nan")
    ranked = np.sort(counts).astype(np.float64)
    n = len(ranked)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ranked / (n * total))


def write_parquet(timeline: Timeline, devices: Devices, path: Path) -> None:
    """Write all jobs as a table."""
    import pyarrow as pa
    from pyarrow import parquet

    jobs = timeline.jobs
    outcomes = np.array([one.name.lower() for one in JobOutcome])
    table = pa.table(
        {
            "device": jobs.device,
            "class": pa.array(np.array(devices.kinds)[devices.kind[jobs.device]]),
            "version": jobs.version,
            "start_s": jobs.start,
            "end_s": jobs.end,
            "outcome": pa.array(outcomes[jobs.outcome]),
            "made": jobs.made,
            "bytes_down": timeline.bytes_down,
            "bytes_up": timeline.bytes_up,
            "joules": timeline.joules,
        }
    )
    parquet.write_table(table, path)


def write_trace(timeline: Timeline, devices: Devices, path: Path) -> None:
    """Write the jobs of the busiest devices as a trace for chrome://tracing or ui.perfetto.dev."""
    jobs = timeline.jobs
    counts = np.bincount(jobs.device, minlength=timeline.devices)
    shown = np.isin(jobs.device, np.argsort(-counts, kind="stable")[:_TRACED])
    events: list[dict[str, Any]] = [
        {
            "name": f"version {jobs.version[k]}: {JobOutcome(jobs.outcome[k]).name.lower()}",
            "cat": devices.kinds[devices.kind[jobs.device[k]]],
            "ph": "X",
            "pid": int(devices.kind[jobs.device[k]]),
            "tid": int(jobs.device[k]),
            "ts": jobs.start[k] * 1e6,
            "dur": (jobs.end[k] - jobs.start[k]) * 1e6,
        }
        for k in np.flatnonzero(shown)
    ]
    events += [
        {"name": "process_name", "ph": "M", "pid": k, "args": {"name": kind}}
        for k, kind in enumerate(devices.kinds)
    ]
    write_atomically(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


def as_tables(summaries: Mapping[str, Summary]) -> list[Table]:
    """Return one table with a column for each policy, and one of the classes of devices."""
    from rich.table import Table

    columns = {name: _figures(one) for name, one in summaries.items()}
    figures = Table(title="What each policy takes", title_justify="left")
    figures.add_column("")
    for name in columns:
        figures.add_column(name, justify="right")
    for row in next(iter(columns.values())):
        figures.add_row(row, *(column[row] for column in columns.values()))
    kinds = Table(title="Who takes part", title_justify="left")
    for heading in ("class", "of the devices", *(f"of the replies, {name}" for name in summaries)):
        kinds.add_column(heading, justify="left" if heading == "class" else "right")
    for kind, (devices, _) in next(iter(summaries.values())).by_kind.items():
        shares = (one.by_kind[kind][1] for one in summaries.values())
        kinds.add_row(kind, f"{devices:.1%}", *(f"{share:.1%}" for share in shares))
    return [figures, kinds]


def _figures(one: Summary) -> dict[str, str]:
    return {
        "virtual time": duration(3600 * one.hours),
        "versions of the model": count(one.versions),
        "seconds between versions, median": number(one.median_round_s),
        "seconds between versions, 95 %": number(one.slow_round_s),
        "rounds with too few replies": count(one.failed_rounds),
        "jobs": count(one.jobs),
        "replies used": f"{one.used:.1%}",
        "down": size(round(one.bytes_down)),
        "up": size(round(one.bytes_up)),
        "energy, kWh": number(one.kwh),
        "of it wasted, kWh": number(one.wasted_kwh),
        "devices that took part": count(one.took_part),
        "Gini of their replies": number(one.gini),
        "mean staleness, versions": number(one.staleness),
        "devices without the memory": count(one.excluded),
    }
