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
        default: the default value, which also sets the type: a number, a boolean, a list of integers, or one
            of `choices`. `None`: a float derived from other values; the entry that uses the argument
            documents them.
        least: smallest valid value.
        below: exclusive upper limit; most: inclusive upper limit.
        positive: whether 0 is invalid as well. For a list, the limits hold for each number.
        choices: the valid texts.
    """

    default: float | bool | str | tuple[int, ...] | None
    least: float = 0.0
    below: float = math.inf
    positive: bool = False
    most: float = math.inf
    choices: tuple[str, ...] = ()

    def fits(self, value: object) -> bool:
        """Whether a value from a scenario is valid."""
        match self.default:
            case bool():
                return isinstance(value, bool)
            case str():
                return value in self.choices
            case tuple():
                return isinstance(value, list | tuple) and all(self._in_range(n, int) for n in value)
            case int():
                return self._in_range(value, int)
            case _:
                return self._in_range(value, (int, float))

    def wanted(self) -> str:
        """Describe the valid values."""
        match self.default:
            case bool():
                return "true or false"
            case str():
                return f"one of {', '.join(self.choices)}"
            case tuple():
                return f"a list of whole numbers {self._range()}"
            case int():
                return f"a whole number {self._range()}"
            case _:
                return f"a number {self._range()}"

    def _in_range(self, value: object, kind: type | tuple[type, ...]) -> bool:
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        number: float = value  # type: ignore[assignment]
        if self.positive and number == 0:
            return False
        return self.least <= number < self.below and number <= self.most

    def _range(self) -> str:
        parts = ["above 0" if self.positive else f"of at least {self.least:g}"]
        parts += [f"below {self.below:g}"] if math.isfinite(self.below) else []
        parts += [f"at most {self.most:g}"] if math.isfinite(self.most) else []
        return " and ".join(parts)


def problems(key: str, owner: str, given: Mapping[str, Any], known: Mapping[str, Argument]) -> Iterator[str]:
    """Yield one line for each argument that is unknown or invalid.

    Args:
        key: the key that holds the arguments, e.g. "strategy.args"; owner: name of the entry that takes them.
        given: from the scenario; known: the table.
    """
    for name, value in given.items():
        if name not in known:
            unknown = errors.unknown_name(f"argument of {owner}", name, known) if known else None
            yield f"{key}: {unknown or f'{owner} takes no arguments, got {name}'}"
        elif not known[name].fits(value):
            yield f"{key}.{name}: expected {known[name].wanted()}, got {value!r}"
