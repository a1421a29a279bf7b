"""Converts labels to text."""

from __future__ import annotations


def label_text(value: object) -> str:
    """Return the class name of a label."""
    if isinstance(value, bool):
        return str(value).lower()  # true and false, as in Arrow and TOML
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
