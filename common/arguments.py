"""Named arguments that a scenario may set: a table lists them with their valid values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shoal.common import errors


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument that a scenario may set.

    Attributes:
        default: the default value, which also sets the type. `None`: a float that is derived from something
            else; the entry that takes the argument says from what.
        least: smallest valid value; below: exclusive upper limit; positive: whether 0 is refused as well.
        most: inclusive upper limit.
    """

    default: float | None
    least: float = 0.0
    below: float = math.inf
    positive: bool = False
    most: float = math.inf

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are valid."""
        return isinstance(self.default, int)

    def fits(self, value: object) -> bool:
        """Whether a value from a scenario is valid."""
        wanted = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            return False
        return self.least <= value < self.below and value <= self.most and not (self.positive and value == 0)

    def wanted(self) -> str:
        """Describe the valid values."""
        kind = "a whole number" if self.whole else "a number"
        low = "above 0" if self.positive else f"of at least {self.least:g}"
        text = f"{kind} {low}" if math.isinf(self.below) else f"{kind} {low} and below {self.below:g}"
        return text if math.isinf(self.most) else f"{text} and at most {self.most:g}"


def problems(key: str, owner: str, given: Mapping[str, Any], known: Mapping[str, Argument]) -> Iterator[str]:
    """Yield one line for each argument that is unknown or invalid.

    Args:
        key: the key that holds the arguments, e.g. "strategy.args"; owner: the name of what takes them.
        given: from the scenario; known: the table.
    """
    for name, value in given.items():
        if name not in known:
            unknown = errors.unknown_name(f"argument of {owner}", name, known) if known else None
            yield f"{key}: {unknown or f'{owner} takes no arguments, got {name}'}"
        elif not known[name].fits(value):
            yield f"{key}.{name}: expected {known[name].wanted()}, got {value!r}"
