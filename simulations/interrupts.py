"""Ctrl-C once: the current round is finished and saved. Twice: the run ends at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # schedulers and containers send SIGTERM


class Interrupts:
    """A context in which the first signal during rounds is only recorded.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._patient = False  # whether somebody will look at `_asked`
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        """Install the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self, more: bool) -> bool:
        """Whether the run should end now; called after each round.

        Args:
            more: whether another round follows, after which this is called again.
        """
        self._patient = more
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._patient:
            raise KeyboardInterrupt
        self._asked = True
        print("\nfinishing and saving this round; press Ctrl-C again to stop at once", file=sys.stderr)
