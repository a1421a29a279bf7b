"""Waits for something that another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], bool], seconds: float = 60.0, told: Callable[[], object] = str) -> None:
    """Wait until `holds`; fail after some seconds, with what `told` returns."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.02)
