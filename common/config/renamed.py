"""Keys of scenario files that have a new name. The old name is still read for one version, with a warning."""

from __future__ import annotations

from typing import Any, Final

from shoal.common.config.places import Keys

# A row is removed one version after it was added; then the old key is refused like any unknown one.
RENAMED: Final[dict[str, str]] = {
    "resources.path": "resources.execution_mode",
    "attack.args.fellows": "attack.args.colluders",
}


def rename_keys(table: dict[str, Any]) -> tuple[list[tuple[Keys, Keys]], list[tuple[Keys, Keys]]]:
    """Move each value that is under an old key to the new key, in place.

    Args:
        table: a scenario as read from TOML; it is changed.

    Returns:
        The (old, new) keys that were moved, and those that were left because both keys are set.
    """
    moved, doubled = [], []
    for before, after in RENAMED.items():
        old, new = tuple(before.split(".")), tuple(after.split("."))
        inner = _inner_table(table, old[:-1])
        if inner is None or old[-1] not in inner:
            continue
        if new[-1] in inner:  # old and new key are in the same table: a test checks it
            doubled.append((old, new))
        else:
            inner[new[-1]] = inner.pop(old[-1])
            moved.append((old, new))
    return moved, doubled


def warning_text(place: str, old: Keys, new: Keys) -> str:
    """Return the warning to the user: where the old key is, and what to write instead."""
    return (
        f"{place}: {'.'.join(old)} has been renamed to {'.'.join(new)}; the old name still works in this "
        "version only: use the new one"
    )


def _inner_table(table: dict[str, Any], keys: Keys) -> dict[str, Any] | None:
    inner: Any = table
    for key in keys:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else None
