"""The page of an attack table: its sentences, figures and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.simulations.report.plot import CATEGORICAL, Figure, figure, label, title
from shoal.simulations.results.sites import higher_is_better
from shoal.simulations.results.text import NONE, metric_name, number

if TYPE_CHECKING:
    from shoal.simulations.sweeps.attack_table import AttackTable, Row

DIVERGED = "diverged"
_LEAST = {"accuracy": 0.0, "f1": 0.0, "auc": 0.5}  # lower end of the colour scale; the upper end is 1


def view(table: AttackTable) -> dict[str, Any]:
    """Return what the template attacks.html.j2 shows."""
    rows = [row for row in table.rows if not row.error]
    metric = table.rows[0].metric
    attacks = list(dict.fromkeys(row.attack for row in table.rows))
    defences = list(dict.fromkeys(row.defence for row in table.rows))
    scenario = table.scenario
    return {
        "name": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.training.rounds,
        "metric": metric_name(metric),
        "headline": headline(rows, metric),
        "backdoors": backdoors(rows),
        "malicious": f"{len(table.malicious)} of {table.clients} clients: {', '.join(table.malicious)}",
        "defences": defences,
        "map": _map(rows, attacks, defences, metric),
        "kept": _cells(table.rows, attacks, defences, "last"),
        "chosen": _cells(table.rows, attacks, defences, "chosen"),
        "success": _success(rows, defences),
        "success_table": _cells(
            [row for row in rows if math.isfinite(row.success)], attacks, defences, "success"
        ),
        "errors": [(row.attack, row.defence, row.error) for row in table.rows if row.error],
    }


def headline(rows: Sequence[Row], metric: str) -> str:
    """Say which attack is worst without a defence, and which defence is best under its worst attack."""
    name, undefended = metric_name(metric), [row for row in rows if row.defence == "FedAvg"]
    attacked = [row for row in rows if row.attack != "none" and (row.diverged or math.isfinite(row.last))]
    harmed = [row for row in undefended if row in attacked]
    peace = next((row for row in undefended if row.attack == "none"), None)
    if peace is None or not harmed:
        return "No attack was measured against plain averaging."
    sign = 1 if higher_is_better(metric) else -1

    def rank(row: Row) -> float:
        return -math.inf if row.diverged else sign * row.last

    worst = min(harmed, key=rank)
    numbers = f"goes from {name} {number(peace.last)} to {number(worst.last)}"
    text = f"Under {worst.attack}, plain averaging {'diverges' if worst.diverged else numbers}"
    tried = dict.fromkeys(row.defence for row in attacked)
    lowest = [min((row for row in attacked if row.defence == defence), key=rank) for defence in tried]
    best = max(lowest, key=rank)
    if best.diverged or best.defence == worst.defence:
        return f"{text}; no defence does better under its own worst attack."
    return f"{text}; {best.defence} keeps {number(best.last)} or better under every attack tried."


def backdoors(rows: Sequence[Row]) -> list[str]:
    """Say how often each backdoor succeeds: a model with good accuracy may still have one."""
    measured = [row for row in rows if row.attack != "none" and math.isfinite(row.success)]
    found = []
    for attack in dict.fromkeys(row.attack for row in measured):
        cells = sorted((row for row in measured if row.attack == attack), key=lambda row: row.success)
        least, most = cells[0], cells[-1]
        text = f"{attack} succeeds on {least.success:.0%} of the triggered rows with {least.defence}"
        more = f", and on {most.success:.0%} with {most.defence}" if most is not least else ""
        found.append(f"{text}{more}.")
    return found


def _find(rows: Sequence[Row], attack: str, defence: str) -> Row | None:
    return next((row for row in rows if (row.attack, row.defence) == (attack, defence)), None)


def _cells(
    rows: Sequence[Row], attacks: Sequence[str], defences: Sequence[str], what: str
) -> list[tuple[str, list[str]]]:
    """Return (attack, the value for each defence as text), for attacks that have any value."""
    found = []
    for attack in attacks:
        cells = [_find(rows, attack, defence) for defence in defences]
        if any(cells):
            found.append((attack, [_shown(cell, what) for cell in cells]))
    return found


def _shown(cell: Row | None, what: str) -> str:
    if cell is None:
        return NONE
    return DIVERGED if cell.diverged else number(getattr(cell, what))


def _map(rows: Sequence[Row], attacks: Sequence[str], defences: Sequence[str], metric: str) -> Figure:
    """Return the metric of each cell as colour and text, with the first attack on top."""
    shown = list(reversed(attacks))
    values = [
        [math.nan if (cell := _find(rows, attack, defence)) is None else cell.last for defence in defences]
        for attack in shown
    ]
    low, high = ("var(--panel)", "var(--c5)") if higher_is_better(metric) else ("var(--c5)", "var(--panel)")
    range_ = {"zmin": _LEAST[metric], "zmax": 1.0} if metric in _LEAST else {}
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": [label(name) for name in defences],
        "y": [label(name) for name in shown],
        "z": values,
        "text": [[_shown(_find(rows, a, d), "last") for d in defences] for a in shown],
        "texttemplate": "%{text}",
        "textfont": {"color": "var(--text)"},
        "opacity": 0.55,  # so that text is readable on any colour in both themes
        "hovertemplate": f"%{{y}} against %{{x}}: {metric_name(metric)} %{{text}}<extra></extra>",
        "colorscale": [[0, low], [1, high]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        **range_,
    }
    text = {"tickfont": {"color": "var(--text)"}, "showgrid": False}
    return figure(
        [trace], height=110 + 44 * len(attacks), x={**text, "side": "top"}, y={**text, "type": "category"}
    )


def _success(rows: Sequence[Row], defences: Sequence[str]) -> Figure | None:
    """Return the success rate of each backdoor by defence; `None` without a backdoor."""
    measured = [row for row in rows if math.isfinite(row.success)]
    attacks = list(dict.fromkeys(row.attack for row in measured))
    if not any(attack != "none" for attack in attacks):
        return None
    colours = ("var(--neutral)", *CATEGORICAL)
    traces = []
    for attack, colour in zip(attacks, colours, strict=False):
        found = [_find(measured, attack, defence) for defence in defences]
        name = "without an attack" if attack == "none" else attack
        values = [math.nan if row is None else row.success for row in found]
        traces.append(
            {
                "type": "bar",
                "name": label(name, 60),
                "x": [label(defence) for defence in defences],
                "y": values,
                "marker": {"color": colour},
                "hovertemplate": "%{y:.1%}",
            }
        )
    y = {"title": title("triggered rows predicted as the class"), "tickformat": ".0%", "range": [0, 1.02]}
    x = {"tickfont": {"color": "var(--text)"}, "showgrid": False}
    return figure(traces, height=320, x=x, y=y, bargap=0.3, hovermode="x unified")
