"""Figures over sites: intervals by site, distributions for many sites, and the sites' data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.common.events import SiteRow
from shoal.simulations.comparison import differences
from shoal.simulations.report.plot import CATEGORICAL, COLOURS, LABELS, SYMBOLS, Figure, figure, label, title
from shoal.simulations.results.sites import models
from shoal.simulations.results.text import metric_name

MANY = 60  # sites; above this, figures show distributions
_OFFSETS = {1: (0.0,), 2: (-0.17, 0.17), 3: (-0.25, 0.0, 0.25)}


def by_site(rows: Sequence[SiteRow], metric: str) -> Figure:
    """Return one line per site, with a point and an interval for each model."""
    present = models(rows)
    traces = []
    for model, offset in zip(present, _OFFSETS[len(present)], strict=True):
        found = [
            (i + offset, row, row.tests[model][metric])
            for i, row in enumerate(rows)
            if metric in row.tests.get(model, {}) and math.isfinite(row.tests[model][metric].value)
        ]
        colour = COLOURS[model]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": LABELS[model],
                "x": [interval.value for _, _, interval in found],
                "y": [place for place, _, _ in found],
                "text": [label(row.name, 60) for _, row, _ in found],
                "marker": {"color": colour, "size": 10, "symbol": SYMBOLS[model]},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_arm(interval.high, interval.value) for _, _, interval in found],
                    "arrayminus": [_arm(interval.value, interval.low) for _, _, interval in found],
                    "color": colour,
                    "thickness": 1.6,
                    "width": 0,
                },
                "customdata": [[interval.low, interval.high] for _, _, interval in found],
                "hovertemplate": "<b>%{text}</b><br>%{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            }
        )
    names = {
        "tickmode": "array",
        "tickvals": list(range(len(rows))),
        "ticktext": [label(row.name, 16) for row in rows],
        "range": [len(rows) - 0.45, -0.55],
        "showgrid": False,
        "tickfont": {"color": "var(--text)"},
    }
    height = 90 + len(rows) * (46 if len(rows) <= 20 else 34)
    return figure(
        traces,
        height=height,
        x={"title": title(metric_name(metric))},
        y=names,
        shapes=_separators(len(rows)),
        hovermode="closest",
        showlegend=True,
    )


def _arm(high: float, low: float) -> float:
    # A bootstrap interval may not contain the value itself; a negative arm would point the wrong way.
    return max(high - low, 0.0)


def _separators(count: int) -> list[dict[str, Any]]:
    line = {"color": "var(--grid)", "width": 1}
    return [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": i - 0.5,
            "y1": i - 0.5,
            "line": line,
            "layer": "below",
        }
        for i in range(1, count)
    ]


def distribution(rows: Sequence[SiteRow], metric: str) -> Figure:
    """Return one box per model over all sites."""
    traces = [
        {
            "type": "box",
            "name": LABELS[model],
            "x": [row.tests[model][metric].value for row in rows if metric in row.tests.get(model, {})],
            "marker": {"color": COLOURS[model], "size": 4},
            "line": {"width": 1.6},
            "fillcolor": "rgba(0,0,0,0)",
            "boxpoints": "outliers",
            "hoverinfo": "x",
        }
        for model in reversed(models(rows))
    ]
    return figure(
        traces,
        height=70 + 60 * len(traces),
        x={"title": title(metric_name(metric))},
        y={"showgrid": False, "tickfont": {"color": "var(--text)"}},
        showlegend=False,
    )


def gains(rows: Sequence[SiteRow], metric: str) -> Figure | None:
    """Return a histogram of the sites' gains; `None` without local-only models."""
    found = [difference.gain for difference in differences(rows, "local", metric)]
    if not found:
        return None
    trace = {
        "type": "histogram",
        "x": found,
        "nbinsx": 40,
        "marker": {"color": COLOURS["federated"], "line": {"color": "var(--panel)", "width": 1}},
        "hovertemplate": "%{x}: %{y} sites<extra></extra>",
    }
    zero = {"type": "line", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    line = {"color": "var(--text)", "width": 1.5, "dash": "dot"}
    return figure(
        [trace],
        height=260,
        x={
            "title": title(
                f"gain in {metric_name(metric)} over local-only (above 0: federated learning helped)"
            )
        },
        y={"title": title("sites"), "rangemode": "tozero"},
        shapes=[{**zero, "line": line}],
    )


def balance(clients: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the shares of the labels by client; `None` if no label counts are known."""
    names = list(dict.fromkeys(name for client in clients for name in client.get("labels") or {}))
    if not names:
        return None
    # With more than eight classes, colours repeat: neighbours still differ, and hovering shows the name.
    colours = {name: CATEGORICAL[i % len(CATEGORICAL)] for i, name in enumerate(names)}
    shares = [_shares(client, names) for client in clients]
    if len(clients) > MANY:
        traces = [
            {
                "type": "box",
                "name": label(name),
                "y": [share[name] for share in shares],
                "marker": {"color": colours[name], "size": 3},
                "line": {"width": 1.4},
                "fillcolor": "rgba(0,0,0,0)",
            }
            for name in names
        ]
        y = {"tickformat": ".0%", "title": title("share of a client's rows")}
        return figure(traces, height=300, y=y, x={"showgrid": False}, showlegend=False)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label(name),
            "y": list(range(len(clients))),
            "x": [share[name] for share in shares],
            "text": [label(str(client["name"]), 60) for client in clients],
            "textposition": "none",
            "marker": {"color": colours[name]},
            "hovertemplate": "<b>%{text}</b>: %{x:.1%}",
        }
        for name in names
    ]
    return figure(
        traces,
        height=80 + 30 * len(clients),
        x={"tickformat": ".0%", "range": [0, 1], "title": title("share of the rows with a reported label")},
        y=_client_axis(clients),
        barmode="stack",
        bargap=0.35,
    )


def _client_axis(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(clients))),
        "ticktext": [label(str(client["name"]), 16) for client in clients],
        "range": [len(clients) - 0.5, -0.5],
        "showgrid": False,
        "tickfont": {"color": "var(--text)"},
    }


def _shares(client: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    counts = {name: (client.get("labels") or {}).get(name) or 0 for name in names}
    total = sum(counts.values())
    return {name: counts[name] / total if total else math.nan for name in names}


def sizes(clients: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the rows by client, or their histogram if there are many clients."""
    rows = [client.get("rows") or 0 for client in clients]
    colour = {"color": "var(--neutral)"}
    if len(clients) > MANY:
        trace = {"type": "histogram", "x": rows, "nbinsx": 40, "marker": colour}
        return figure([trace], height=260, x={"title": title("rows")}, y={"title": title("clients")})
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(clients))),
        "x": rows,
        "marker": colour,
        "text": [f"{count:,}" for count in rows],
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    longest = max(rows, default=1)
    x = {"title": title("rows"), "range": [0, longest * 1.18], "showgrid": False, "showticklabels": False}
    return figure([trace], height=60 + 30 * len(clients), x=x, y=_client_axis(clients), bargap=0.35)


def missing(columns: Sequence[Mapping[str, Any]], most: int = 25) -> Figure | None:
    """Return the columns with the highest share of missing values; `None` if nothing is missing."""
    found = [(c["missing_rate"], str(c["name"])) for c in columns if c.get("missing_rate")]
    if not found:
        return None
    found = sorted(found, reverse=True)[:most]
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(found))),
        "x": [share for share, _ in found],
        "text": [f"{share:.1%}" for share, _ in found],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "var(--neutral)"},
        "hoverinfo": "skip",
    }
    axis = _client_axis([{"name": name} for _, name in found])
    x = {"range": [0, max(share for share, _ in found) * 1.18], "showgrid": False, "showticklabels": False}
    return figure([trace], height=40 + 24 * len(found), x=x, y=axis, bargap=0.35)
