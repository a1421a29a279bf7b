"""The report's section on differential privacy: the guarantee and the budget spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.common.config import Scenario
from shoal.common.events import RoundRow
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.simulations.report.plot import Figure, figure, rounds_axis, series, title
from shoal.simulations.results.text import number

_NOTHING = (
    "No differential privacy: there is no bound on what the models reveal about single rows or clients. "
    "docs/privacy.md says how to enable it."
)


def kept_word(scenario: Scenario) -> str:
    """Return which round is kept: with differential privacy the last, as rows must not select one."""
    return "last" if mechanism_of(scenario.privacy).guarantees else "best"


def privacy_section(
    scenario: Scenario, summary: Mapping[str, Any], rounds: Sequence[RoundRow]
) -> dict[str, Any]:
    """Return the notes, figure, facts and lists of the section.

    Args:
        scenario: of the run; summary: its summary.json; empty while it runs, or after a crash.
        rounds: so far.
    """
    privacy = scenario.privacy
    charged = [row for row in rounds if math.isfinite(row.epsilon)]
    guarantee: Mapping[str, Any] = summary.get("privacy") or {}
    if not mechanism_of(privacy).guarantees:
        return {"notes": [_NOTHING], "figure": None, "facts": [], "covers": [], "not_covered": []}
    spent = charged[-1].epsilon if charged else 0.0
    budget = f" of {privacy.epsilon:g}" if privacy.epsilon is not None else ""
    notes = [f"Budget spent: ε = {number(spent)}{budget}, at δ = {privacy.delta:g}."]
    if guarantee:
        notes.append(
            f"The guarantee holds {guarantee['holds']}, for data sets that {guarantee['neighbours']}."
        )
        against = guarantee.get("against") or {}
        notes += [f"Against {who}: ε = {value}." for who, value in against.items()]
    return {
        "notes": notes,
        "figure": _spent(charged, privacy.epsilon) if charged else None,
        "facts": _facts(scenario, guarantee),
        "covers": guarantee.get("covers", []),
        "not_covered": guarantee.get("not_covered", []),
    }


def _facts(scenario: Scenario, guarantee: Mapping[str, Any]) -> list[tuple[str, str]]:
    privacy = scenario.privacy
    noise = guarantee.get("noise_multiplier")
    return [
        ("protects", mechanism_of(privacy).protects),
        (
            "clipping norm",
            f"{privacy.clip_norm:g}" + (", adaptive" if privacy.clipping == "adaptive" else ""),
        ),
        ("noise multiplier", number(noise) if noise is not None else "different for each client"),
        ("sampling", str(guarantee.get("sampling", "–"))),
        ("accountant", {"rdp": "Rényi divergences", "pld": "privacy loss distributions"}[privacy.accountant]),
        ("noise from", str(guarantee.get("noise_source", "–"))),
    ]


def _spent(rows: Sequence[RoundRow], budget: float | None) -> Figure:
    """Return epsilon over rounds, with the budget as a line."""
    numbers = [row.round for row in rows]
    traces = [series("spent", numbers, [row.epsilon for row in rows], "var(--c4)")]
    if budget is not None:
        line = {"color": "var(--muted)", "width": 2, "dash": "dot"}
        traces.append(series("budget", numbers, [budget] * len(rows), "var(--muted)", line=line))
    y = {"title": title("epsilon"), "rangemode": "tozero", "nticks": 6}
    return figure(traces, height=270, x=rounds_axis(numbers), y=y, hovermode="x unified")
