"""Ctrl-C once: the round that is being done is finished and saved. Twice: the run ends at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is how schedulers and containers ask


class Interrupts:
    """A context in which the first signal is only remembered, while rounds are running.

    Outside the main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._patient = False  # whether somebody will look at `_asked`
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self, more: bool) -> bool:
        """Tell whether the run shall end here; it is asked after each round.

        Args:
            more: whether another round follows, at whose end it is asked again.
        """
        self._patient = more
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._patient:
            raise KeyboardInterrupt
        self._asked = True
        print("\nfinishing this round and saving it; once more to leave at once", file=sys.stderr)
