"""Formats numbers as text, in the same way for terminal, log and report."""

from __future__ import annotations

import math
from collections.abc import Mapping

from shoal.common.config import Scenario
from shoal.common.events import Interval, Model, RoundRow
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.simulations.results.sites import monitored_metric

NAMES = {
    "auc": "AUC",
    "f1": "macro F1",
    "accuracy": "accuracy",
    "loss": "loss",
    "mae": "MAE",
    "mse": "MSE",
}
MODEL_NAMES: Mapping[Model, str] = {
    "local": "local-only",
    "federated": "federated",
    "centralised": "centralised",
}
NONE = "–"


def metric_name(metric: str) -> str:
    """Return the display name of a metric."""
    return NAMES.get(metric, metric)


def number(value: float | None, digits: int = 3) -> str:
    """Return a metric with three decimals, or with four digits if it is far from 1."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    small = value != 0 and abs(value) < 10**-digits
    text = f"{value:.3g}" if small or abs(value) >= 100 else f"{value:.{digits}f}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def interval(found: Interval | None) -> str:
    """Return "0.931 [0.902, 0.955]", without brackets if there is no interval."""
    return " ".join(part for part in interval_parts(found) if part)


def interval_parts(found: Interval | None) -> tuple[str, str]:
    """Return value and interval separately: ("0.931", "[0.902, 0.955]")."""
    if found is None or math.isnan(found.value):
        return NONE, ""
    if math.isnan(found.low) or math.isnan(found.high):
        return number(found.value), ""
    return number(found.value), f"[{number(found.low)}, {number(found.high)}]"


def count(value: int | None) -> str:
    """Return a whole number with thousands separators; None and negative numbers mean "not reported"."""
    return NONE if value is None or value < 0 else f"{value:,}"


def size(amount: float) -> str:
    """Return bytes in decimal units, e.g. "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time, e.g. "0.42 s", "3 min 20 s", "2 h 05 min"."""
    if not math.isfinite(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(clients: int, seconds: float) -> str:
    """Return a rate of clients per second."""
    return f"{clients / seconds:.3g}" if seconds > 0 else NONE


def round_line(row: RoundRow, scenario: Scenario, *, left: float | None = None) -> str:
    """Return a round as one line; `left` is the remaining time in seconds."""
    monitor = monitored_metric(scenario.training, row.metrics)
    parts = [f"round {row.round}/{scenario.training.rounds}"]
    if row.round:
        missing = f" ({row.cohort - row.succeeded} failed)" if row.succeeded < row.cohort else ""
        parts += [f"cohort {count(row.cohort)}{missing}", f"train loss {number(row.train_loss)}"]
    if monitor:
        best = " *best" if row.best and not mechanism_of(scenario.privacy).guarantees else ""
        parts.append(f"{metric_name(monitor)} {number(row.metrics[monitor])}{best}")
    if row.epsilon == row.epsilon:
        parts.append(f"ε {number(row.epsilon)}")
    if row.round:
        parts.append(f"{rate(row.succeeded, row.seconds)} clients/s")
    parts.append(duration(row.seconds))
    if left is not None:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)
