"""The rounds of a run, without what differs between two runs of the same bits, or two backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.simulations.results import RunFolder


def untimed(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of rounds.parquet without the seconds, and without what crossed processes."""
    rows = RunFolder(folder).rounds().to_pylist()
    return [{k: v for k, v in row.items() if not k.startswith(("seconds", "bytes_moved"))} for row in rows]
