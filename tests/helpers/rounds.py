"""The rounds of a run, without what may differ between two runs of the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.simulations.results import RunFolder


def untimed(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of rounds.parquet without the seconds."""
    rows = RunFolder(folder).rounds().to_pylist()
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]
