"""Figures over rounds: losses and metrics, traffic, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from shoal.common.events import RoundRow
from shoal.simulations.report.plot import CATEGORICAL, MAX_POINTS, Figure, figure, rounds_axis, series, title

# Phase → colour; the order is that of the stack, from below.
_PHASES = {
    "train": "var(--c3)",
    "evaluate": "var(--c5)",
    "load": "var(--c7)",
    "preprocess": "var(--c6)",
    "reduce": "var(--c1)",
    "aggregate": "var(--c2)",
    "broadcast": "var(--c4)",
    "build": "var(--text)",
    "wait": "var(--muted)",
    "idle": "var(--line)",
    "other": "var(--c8)",
}


def curve(rows: Sequence[RoundRow], metric: str, kept: str = "best") -> Figure | None:
    """Return a validation metric over rounds; the loss with the training loss.

    Args:
        rows: of the run; metric: its name; kept: label of the round whose weights are kept.
    """
    traces = []
    if metric == "loss":
        trained = [row for row in rows if math.isfinite(row.train_loss)]
        if trained:
            values = [row.train_loss for row in trained]
            line = {"color": "var(--muted)", "width": 2, "dash": "dot"}
            traces.append(series("training", [r.round for r in trained], values, "var(--muted)", line=line))
    found = [row for row in rows if metric in row.metrics]
    if found:
        values = [row.metrics[metric] for row in found]
        traces.append(series("validation", [r.round for r in found], values, "var(--federated)"))
    if not traces:
        return None
    best = [row for row in found if row.best]
    if best:
        traces.append(_mark(f"{kept} ({best[-1].round})", best[-1].round, best[-1].metrics[metric]))
    y = {"nticks": 6}
    x = rounds_axis([row.round for row in rows])
    return figure(traces, height=270, x=x, y=y, hovermode="x unified")


def _mark(name: str, number: int, value: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [number],
        "y": [value],
        "marker": {
            "symbol": "star",
            "size": 15,
            "color": "var(--text)",
            "line": {"color": "var(--panel)", "width": 1.5},
        },
    }


def traffic(rows: Sequence[RoundRow]) -> Figure:
    """Return the payload of each round in both directions."""
    y = {"title": title("bytes per round"), "tickformat": "~s", "ticksuffix": "B", "rangemode": "tozero"}
    rounds = [row.round for row in rows]
    parts = (("up", [row.bytes_up for row in rows]), ("down", [row.bytes_down for row in rows]))
    return figure(
        [_over_rounds(_direction(name), rounds, values, _colour(name)) for name, values in parts],
        height=270,
        x=rounds_axis(rounds),
        y={**y, "nticks": 6},
        hovermode="x unified",
        bargap=0.25,
    )


def cumulative_traffic(rows: Sequence[RoundRow]) -> Figure:
    """Return the payload so far in both directions."""
    rounds = [row.round for row in rows]
    parts = (("up", [row.bytes_up for row in rows]), ("down", [row.bytes_down for row in rows]))
    y = {"title": title("bytes so far"), "tickformat": "~s", "ticksuffix": "B", "rangemode": "tozero"}
    return figure(
        [series(_direction(name), rounds, accumulate(values), _colour(name)) for name, values in parts],
        height=270,
        x=rounds_axis(rounds),
        y={**y, "nticks": 6},
        hovermode="x unified",
    )


def _direction(name: str) -> str:
    return {"up": "to the server", "down": "to the clients"}[name]


def _colour(name: str) -> str:
    return {"up": "var(--c3)", "down": "var(--neutral)"}[name]


def _over_rounds(name: str, rounds: Sequence[int], values: Sequence[float], colour: str) -> dict[str, Any]:
    if len(rounds) > MAX_POINTS:
        return series(name, rounds, values, colour)
    return {"type": "bar", "name": name, "x": list(rounds), "y": list(values), "marker": {"color": colour}}


def time(rows: Sequence[RoundRow]) -> Figure:
    """Return the seconds of each round by phase, stacked."""
    rounds = [row.round for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row.phases))
    if not names:
        return figure(
            [_over_rounds("round", rounds, [row.seconds for row in rows], CATEGORICAL[0])], height=270
        )
    traces = []
    for name in [name for name in _PHASES if name in names]:
        colour = _PHASES[name]
        values = [row.phases.get(name, 0.0) for row in rows]
        trace = _over_rounds(name, rounds, values, colour)
        if trace["type"] == "scatter":
            trace |= {"stackgroup": "all", "fillcolor": colour, "line": {"width": 0, "color": colour}}
        traces.append(trace)
    y = {"title": title("seconds per round"), "rangemode": "tozero", "nticks": 6}
    return figure(
        traces, height=270, x=rounds_axis(rounds), y=y, barmode="stack", bargap=0.2, hovermode="x unified"
    )


def speed(rows: Sequence[RoundRow]) -> Figure:
    """Return the number of clients trained per second in each round."""
    timed = [row for row in rows if row.succeeded and row.seconds > 0]
    rounds = [row.round for row in timed]
    values = [row.succeeded / row.seconds for row in timed]
    y = {"title": title("clients per second"), "rangemode": "tozero", "nticks": 6}
    trace = series("clients per second", rounds, values, "var(--c3)")
    return figure([trace], height=270, x=rounds_axis(rounds), y=y, hovermode="x unified")
