"""Where the time of a process goes, by named phases that exclude each other.

`span("train")` charges the time until its end to "train", less what spans inside it charge elsewhere; what
no span charges is "other". So the phases of a process add up to its wall time. Phases of a round, in the
order in which they come:

- broadcast: the server hands a phase's content to the workers' shared memory;
- wait: messages and replies on their way between server and workers;
- build: a worker imports TensorFlow and builds the model;
- load, preprocess: a client's rows are read, and encoded;
- train, evaluate: compiled passes over a client's rows, with setting and reading weights;
- reduce: the steps of the update, and summing over the clients of a worker;
- aggregate: the strategy, on the server;
- idle: workers without work; other: everything else.

Phases of workers are means over the workers, so that they fit into the wall time of the server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

PHASES: Final = (
    "broadcast",
    "wait",
    "build",
    "load",
    "preprocess",
    "train",
    "reduce",
    "evaluate",
    "aggregate",
    "idle",
    "other",
)


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of time.

    Attributes:
        name: the phase; track: 0 for this process, 1 and up for workers.
        start: seconds on the clock of `time.perf_counter`; seconds: how long.
    """

    name: str
    track: int
    start: float
    seconds: float


@dataclass(slots=True)
class _Clock:
    started: float = field(default_factory=time.perf_counter)
    names: list[str] = field(default_factory=lambda: ["other"])
    seconds: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    def switch(self) -> float:
        """Charge the time since the last switch to the innermost phase."""
        now = time.perf_counter()
        self.charge(self.names[-1], now - self.started)
        self.started = now
        return now

    def charge(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class _Clocks(threading.local):
    """A clock for each thread: strategies may send from several."""

    def __init__(self) -> None:
        self.clock = _Clock()


_clocks = _Clocks()
_keeping = False


def keep_spans(keep: bool) -> None:
    """Say whether this process keeps single spans, for a trace, beside their sums."""
    global _keeping
    _keeping = keep


@contextmanager
def span(name: str) -> Iterator[None]:
    """Charge the time until the end of the `with` block to a phase of `PHASES`."""
    clock = _clocks.clock
    started = clock.switch()
    clock.names.append(name)
    try:
        yield
    finally:
        ended = clock.switch()
        clock.names.pop()
        if _keeping:
            clock.spans.append(Span(name, 0, started, ended - started))


def move(source: str, seconds: Mapping[str, float], spans: Sequence[Span] = ()) -> None:
    """Charge time that has been charged to one phase to others instead, because more is known of it."""
    clock = _clocks.clock
    clock.switch()
    for name, value in seconds.items():
        clock.charge(name, value)
        clock.charge(source, -value)
    if _keeping:
        clock.spans += spans


def take() -> dict[str, float]:
    """Return the seconds by phase since the last call, in the order of `PHASES`, and begin anew."""
    clock = _clocks.clock
    clock.switch()
    found, clock.seconds = clock.seconds, {}
    return {name: found[name] for name in PHASES if name in found}


def take_spans() -> list[Span]:
    """Return the spans since the last call; none unless they are kept."""
    clock = _clocks.clock
    found, clock.spans = clock.spans, []
    return found
