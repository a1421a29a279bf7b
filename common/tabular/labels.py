"""A label as text."""

from __future__ import annotations


def label_text(value: object) -> str:
    """Return the name of the class that a label stands for."""
    if isinstance(value, bool):
        return str(value).lower()  # as Arrow and TOML write it
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
