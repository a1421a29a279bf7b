"""Writes what a benchmark measured: every number as JSON, and a Markdown table to read."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("flwr", "ray", "tensorflow", "keras", "numpy", "pfl", "fedjax", "jax")


def machine() -> dict[str, str]:
    """Return what the figures depend on: processor, cores, memory, Python and packages."""
    found = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def save(
    name: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    notes: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    packages: Mapping[str, str] | None = None,
) -> None:
    """Write results/NAME.md and results/NAME.json, and print the table.

    Args:
        name: of the files; title: heading of the table.
        columns: headings; rows: cells, floats with three significant digits.
        notes: sentences below the table: what was run, what falls short and why.
        data: all that was measured (each repetition), for whoever wants to draw it.
        packages: versions in another environment that took part.
    """
    FOLDER.mkdir(exist_ok=True)
    environment = machine() | dict(packages or {})
    lines = [f"# {title}", "", _line(columns), _line(["---"] * len(columns))]
    lines += [_line([_cell(value) for value in row]) for row in rows]
    lines += ["", *notes] if notes else []
    lines += ["", "Machine: " + ", ".join(f"{k} {v}" for k, v in environment.items()) + ".", ""]
    (FOLDER / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    told = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
    told |= {"notes": list(notes), "machine": environment, "data": dict(data or {})}
    (FOLDER / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines), flush=True)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
