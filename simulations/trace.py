"""Writes a trace of a run's time for chrome://tracing or https://ui.perfetto.dev.

Source of the format: Trace Event Format, Google, "JSON Array Format": a list of complete events ("X") and
names of threads ("M"), whose closing bracket may be missing. So the file remains valid after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from shoal.common import profiling
from shoal.common.events import ClientRow, RoundRow, SiteRow

_MICRO = 1e6


class TraceFile:
    """An observer that appends the spans of each round to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._file.write("[\n")
        self._tracks: set[int] = set()

    def __enter__(self) -> TraceFile:
        profiling.take_spans()
        profiling.keep_spans(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the list, so that the file is valid JSON."""
        profiling.keep_spans(False)
        self._write()
        self._file.write(json.dumps({"name": "process_name", "ph": "M", "pid": 0, "args": {"name": "shoal"}}))
        self._file.write("\n]\n")
        self._file.close()

    def on_message(self, text: str) -> None:
        """Write the spans up to a step outside the rounds."""
        self._write()

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        """Write the spans of a round."""
        self._write()

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """Write the spans of the final test."""
        self._write()

    def _write(self) -> None:
        for span in profiling.take_spans():
            if span.track not in self._tracks:
                self._tracks.add(span.track)
                name = f"worker {span.track}" if span.track else "server"
                self._event({"name": "thread_name", "ph": "M", "args": {"name": name}}, span.track)
            times = {"ts": span.start * _MICRO, "dur": span.seconds * _MICRO}
            self._event({"name": span.name, "ph": "X", **times}, span.track)
        self._file.flush()

    def _event(self, event: dict[str, Any], track: int) -> None:
        self._file.write(json.dumps({**event, "pid": 0, "tid": track}) + ",\n")
