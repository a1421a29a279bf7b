"""Callbacks of a run: user code called at its start, in its rounds and at its end.

The server knows `Observer` only. `Audience` is the single observer of a run: it calls the callbacks first,
adds their metrics to the round, and then passes the round on to all others, including the run folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path

from shoal.common.config import Scenario
from shoal.common.errors import RunError
from shoal.common.events import ClientRow, Observer, RoundRow, SiteRow


class Callback:
    """Base class of callbacks; override what you need. Called in the process and thread that runs the server.

    An exception in a callback ends the run as failed, and reaches its caller.
    """

    stopping = False

    def stop(self) -> None:
        """End the run after the current round, with the final test and the models, as patience would."""
        self.stopping = True

    def on_start(self, scenario: Scenario, folder: Path) -> None:
        """Called before the first request to a client.

        Args:
            scenario: of the run; folder: its run folder.
        """

    def on_message(self, text: str) -> None:
        """Called at a step outside rounds, e.g. "statistics: asking 5 clients"."""

    def on_client(self, row: ClientRow) -> None:
        """Called for each message to a client and its reply, before `on_round` of its round."""

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> Mapping[str, float] | None:
        """Called after a round.

        Args:
            row: the round, 0 for the evaluation of the initial model; clients: its messages.

        Returns:
            Metrics to add to the round in the run folder, by name; `None` for none. They never select
            the best round.
        """
        return None

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """Called with the final test of all clients."""

    def on_end(self, status: str, folder: Path) -> None:
        """Called when all results are written.

        Args:
            status: "finished", "stopped early", "interrupted" or "failed"; folder: the run folder.
        """


class Audience:
    """The single observer of a run, which passes everything on.

    Args:
        first: receives each round with the metrics that callbacks added: the run folder.
        others: observers and callbacks; callbacks are called before `first`, observers after it.
    """

    def __init__(self, first: Observer, others: Sequence[Observer]) -> None:
        self._callbacks = callbacks_of(others)
        self._observers = [first, *(other for other in others if not isinstance(other, Callback))]

    def on_message(self, text: str) -> None:
        """Pass on a step outside rounds."""
        for observer in (*self._observers, *self._callbacks):
            observer.on_message(text)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        """Pass on a round, with the metrics of the callbacks.

        Raises:
            RunError: a callback returned anything but numbers by name, or used a name that is taken.
        """
        metrics = dict(row.metrics)
        for callback in self._callbacks:
            for client in clients:
                callback.on_client(client)
            for name, value in _checked(callback, callback.on_round(row, clients)).items():
                if name in metrics:
                    raise RunError(f'{type(callback).__name__}.on_round: the metric "{name}" already exists')
                metrics[name] = value
        for observer in self._observers:
            observer.on_round(replace(row, metrics=metrics), clients)

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """Pass on the final test."""
        for observer in (*self._observers, *self._callbacks):
            observer.on_sites(rows)

    def enough(self) -> bool:
        """Return whether a callback has asked to stop."""
        return any(callback.stopping for callback in self._callbacks)


def callbacks_of(observers: Sequence[Observer]) -> list[Callback]:
    """Return the callbacks among observers."""
    return [observer for observer in observers if isinstance(observer, Callback)]


def start(observers: Sequence[Observer], scenario: Scenario, folder: Path) -> None:
    """Call `on_start` of the callbacks."""
    for callback in callbacks_of(observers):
        callback.stopping = False  # it may have stopped an earlier run
        callback.on_start(scenario, folder)


def end(observers: Sequence[Observer], status: str, folder: Path) -> None:
    """Call `on_end` of the callbacks."""
    for callback in callbacks_of(observers):
        callback.on_end(status, folder)


def _checked(callback: Callback, found: object) -> dict[str, float]:
    if found is None:
        return {}
    fits = isinstance(found, Mapping) and all(
        isinstance(name, str) and isinstance(value, Real) and math.isfinite(value)
        for name, value in found.items()
    )
    if not fits or not isinstance(found, Mapping):
        raise RunError(
            f"{type(callback).__name__}.on_round returned {found!r}; expected finite numbers by name, or None"
        )
    return {name: float(value) for name, value in found.items()}
