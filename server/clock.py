"""The time that a scheduler works by: real, or one that a simulation moves on."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time; only differences mean anything."""

    def now(self) -> float:
        """Return the time in seconds."""
        ...


class WallClock:
    """The real time."""

    def now(self) -> float:
        """Return seconds of a clock that never goes back."""
        return time.monotonic()
