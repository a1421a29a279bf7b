"""How a process spends its time, by named phases that do not overlap.

`span("train")` charges the time until its end to "train", except for nested spans; time outside any span is
charged to "other". So the phases of a process add up to its wall time. The phases of a round, in order:

- broadcast: the server puts a phase's content into the workers' shared memory;
- wait: messages and replies in transit between server and workers;
- build: a worker imports TensorFlow and builds the model;
- load, preprocess: reading and encoding a client's rows;
- train, evaluate: compiled passes over a client's rows, including setting and reading weights;
- reduce: update steps, and sums over the clients of a worker;
- aggregate: the strategy, on the server;
- idle: workers without work; other: everything else.

Phases of workers are means over the workers, so that they add up to the wall time of the server.
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
        name: the phase; track: 0 for this process, from 1 for workers.
        start: seconds on the clock of `time.perf_counter`; seconds: duration.
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
    """A clock for each thread: strategies may send messages from several."""

    def __init__(self) -> None:
        self.clock = _Clock()


_clocks = _Clocks()
_keeping = False


def keep_spans(keep: bool) -> None:
    """Set whether this process keeps single spans, for a trace, in addition to their sums."""
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
    """Move time already charged to one phase to other phases, once more is known about it."""
    clock = _clocks.clock
    clock.switch()
    for name, value in seconds.items():
        clock.charge(name, value)
        clock.charge(source, -value)
    if _keeping:
        clock.spans += spans


def take() -> dict[str, float]:
    """Return the seconds by phase since the last call, in the order of `PHASES`, and start again."""
    clock = _clocks.clock
    clock.switch()
    found, clock.seconds = clock.seconds, {}
    return {name: found[name] for name in PHASES if name in found}


def take_spans() -> list[Span]:
    """Return the spans since the last call; empty unless they are kept."""
    clock = _clocks.clock
    found, clock.spans = clock.spans, []
    return found
