"""Nested tables as one table of dotted keys: {"a": {"b": 1}} as {"a.b": 1}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested table by dotted key, in order; empty inner tables are dropped."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
