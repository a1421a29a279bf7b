"""The report's section on what a run promises about its clients and rows, and what it has spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.common.config import Scenario
from shoal.common.events import RoundRow
from shoal.simulations.report.plot import Figure, figure, rounds_axis, series, title
from shoal.simulations.results.text import number

_NOTHING = (
    "No differential privacy: nothing bounds what the models tell about single rows or clients. "
    "docs/privacy.md says how to ask for it."
)


def kept_word(scenario: Scenario) -> str:
    """Say which round's weights are kept: under a promise of privacy nothing is chosen by what rows say."""
    return "best" if scenario.privacy.unit == "none" else "last"


def privacy_section(
    scenario: Scenario, summary: Mapping[str, Any], rounds: Sequence[RoundRow]
) -> dict[str, Any]:
    """Return the notes, figure, facts and lists of the section.

    Args:
        scenario: of the run; summary: what it ended with; empty while it goes on, or after a crash.
        rounds: so far.
    """
    privacy = scenario.privacy
    told = [row for row in rounds if math.isfinite(row.epsilon)]
    promise: Mapping[str, Any] = summary.get("privacy") or {}
    if privacy.unit == "none":
        return {"notes": [_NOTHING], "figure": None, "facts": [], "covers": [], "not_covered": []}
    spent = told[-1].epsilon if told else 0.0
    budget = f" of {privacy.epsilon:g}" if privacy.epsilon is not None else ""
    notes = [f"ε = {number(spent)}{budget} is spent, at δ = {privacy.delta:g}."]
    if promise:
        notes.append(f"It holds {promise['holds']}, for data that {promise['neighbours']}.")
    return {
        "notes": notes,
        "figure": _spent(told, privacy.epsilon) if told else None,
        "facts": _facts(scenario, promise),
        "covers": promise.get("covers", []),
        "not_covered": promise.get("not_covered", []),
    }


def _facts(scenario: Scenario, promise: Mapping[str, Any]) -> list[tuple[str, str]]:
    privacy = scenario.privacy
    noise = promise.get("noise_multiplier")
    return [
        ("protects", {"record": "one training row"}.get(privacy.unit, "one client with all its rows")),
        (
            "clipping norm",
            f"{privacy.clip_norm:g}" + (", adaptive" if privacy.clipping == "adaptive" else ""),
        ),
        ("noise multiplier", number(noise) if noise is not None else "each client its own"),
        ("sampling", str(promise.get("sampling", "–"))),
        ("accountant", {"rdp": "Rényi divergences", "pld": "privacy loss distributions"}[privacy.accountant]),
        ("noise from", str(promise.get("noise_source", "–"))),
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
