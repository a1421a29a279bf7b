"""Parts shared by all figures. A figure is a plain plotly JSON object.

Colours are names of the style sheet's custom properties, "var(--federated)"; report.js puts the values
of the current theme in their place, so a figure follows a change between light and dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shoal.simulations.results.text import MODEL_NAMES

Figure = dict[str, Any]

COLOURS: Mapping[str, str] = {
    "local": "var(--local)",
    "federated": "var(--federated)",
    "centralised": "var(--centralised)",
}
# Symbols differ too, for readers who cannot distinguish the colours, and for print.
SYMBOLS: Mapping[str, str] = {"local": "square", "federated": "circle", "centralised": "diamond"}
LABELS: Mapping[str, str] = {model: name.capitalize() for model, name in MODEL_NAMES.items()}
# Blue comes late: it means "federated" everywhere else.
CATEGORICAL = tuple(f"var(--c{number})" for number in (3, 2, 5, 4, 7, 6, 1, 8))
MAX_POINTS = 80  # more bars or markers than this are drawn as lines


def label(name: str, longest: int = 24) -> str:
    """Return a name for plotly to show: shortened, and with plotly's markup escaped."""
    return html.escape(name if len(name) <= longest else f"{name[: longest - 1]}…", quote=False)


def figure(
    data: Sequence[Mapping[str, Any]],
    *,
    height: int = 300,
    x: Mapping[str, Any] | None = None,
    y: Mapping[str, Any] | None = None,
    **layout: Any,
) -> Figure:
    """Return a figure with the report's layout; `x` and `y` update the axes, `layout` the rest."""
    axis = {
        "automargin": True,
        "fixedrange": True,  # a finger on a phone scrolls the page, not the plot
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "ticks": "",
        "tickfont": {"color": "var(--muted)"},
    }
    return {
        "data": [clean(trace) for trace in data],
        "layout": {
            "height": height,
            "margin": {"l": 8, "r": 14, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": "var(--text)", "size": 12.5},
            "xaxis": {**axis, **(x or {})},
            "yaxis": {**axis, **(y or {})},
            "showlegend": len(data) > 1,
            "legend": {
                "traceorder": "normal",
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
            },
            "hoverlabel": {
                "bgcolor": "var(--panel)",
                "bordercolor": "var(--line)",
                "font": {"color": "var(--text)"},
            },
            "dragmode": False,
            **layout,
        },
    }


def title(text: str) -> dict[str, Any]:
    """Return an axis title."""
    return {"text": text, "font": {"color": "var(--muted)", "size": 12}, "standoff": 8}


def rounds_axis(rounds: Sequence[int]) -> dict[str, Any]:
    """Return the axis of rounds: whole numbers only."""
    short = len(rounds) <= 10
    return {"title": title("round"), "tickformat": "d", "showgrid": False} | ({"dtick": 1} if short else {})


def clean(value: Any) -> Any:
    """Replace numbers that are not finite by `None`, which plotly leaves out."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value


def series(
    name: str, rounds: Iterable[int], values: Iterable[float], colour: str, **more: Any
) -> dict[str, Any]:
    """Return a line over rounds."""
    rounds, values = list(rounds), [float(value) for value in values]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(rounds) <= 30 else "lines",
        "name": name,
        "x": rounds,
        "y": values,
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
        **more,
    }
