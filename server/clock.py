"""The scheduler's source of time: the real time, or a simulation's."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time; only differences are meaningful."""

    def now(self) -> float:
        """Return the time in seconds."""
        ...


class WallClock:
    """Real time."""

    def now(self) -> float:
        """Return seconds of a monotonic clock."""
        return time.monotonic()
