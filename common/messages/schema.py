"""Closed, typed requests: frozen dataclasses whose fields declare their place in a message and valid values.

`parse` reads a request at the receiving side. It refuses, by name, unknown records and keys, missing ones,
and values that have another type, are out of range, or are not finite. `to_content` writes a request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Final, Literal, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from shoal.common.errors import MessageError
from shoal.common.messages.names import CONFIG
from shoal.common.weights import is_finite

Kind = Literal["arrays", "text", "bytes", "flag", "whole", "number", "wholes", "numbers", "byte strings"]
R = TypeVar("R")

_SCALARS: Final[Mapping[str, tuple[type, ...]]] = {
    "text": (str,),
    "bytes": (bytes,),
    "flag": (bool,),
    "whole": (int,),
    "number": (int, float),
}
_LISTS: Final[Mapping[str, str]] = {"wholes": "whole", "numbers": "number", "byte strings": "bytes"}
_SPEC: Final = "message"  # key of a dataclass field's metadata


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """The place of a request's field in a message, and its valid values.

    Attributes:
        record: name of the record; key: in the record, "" for a whole record of arrays.
        kind: type of the value; low, high: bounds of each number, inclusive.
        choices: valid texts; empty for any.
        size: required entries of a list, or bytes of a byte string; `None` for any number.
        doc: one line for docs/messages.md.
    """

    record: str
    key: str
    kind: Kind
    doc: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    size: int | None = None

    def check(self, value: object) -> None:
        """Refuse an invalid value; the error text names the key, and quotes numbers only.

        Raises:
            MessageError: with the expected values.
        """
        inner = _LISTS.get(self.kind)
        if inner is None:
            self._check_one(self.kind, value)
        elif not isinstance(value, list | tuple):
            raise self._refused(f"expected a list of {self.kind}")
        else:
            for one in value:
                self._check_one(inner, one)
        if self.size is not None and len(value) != self.size:  # type: ignore[arg-type]
            raise self._refused(f"expected {self.size} entries, got {len(value)}")  # type: ignore[arg-type]

    def _check_one(self, kind: str, value: object) -> None:
        wanted = _SCALARS[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "flag"):
            raise self._refused(f"expected {kind}, got {type(value).__name__}")
        if isinstance(value, int | float) and not (math.isfinite(value) and self.low <= value <= self.high):
            raise self._refused(f"{value:g} is out of range: {self.range()}")
        if self.choices and value not in self.choices:
            raise self._refused(f"expected one of {', '.join(self.choices)}")

    def range(self) -> str:
        """Describe the valid values."""
        if self.choices:
            return ", ".join(self.choices)
        if math.isinf(self.low) and math.isinf(self.high):
            return "finite" if self.kind in ("number", "numbers") else ""
        if math.isinf(self.high):
            return f"at least {self.low:g}"
        return f"{self.low:g} to {self.high:g}"

    def _refused(self, why: str) -> MessageError:
        return MessageError(f'"{self.key}" in the record "{self.record}" of a request: {why}')


def arrays(record: str, doc: str, *, optional: bool = False) -> Any:
    """Declare a field that is a whole record of arrays; an optional one is `None` if absent."""
    return _field(FieldSpec(record, "", "arrays", doc), None if optional else MISSING)


def key(
    name: str,
    kind: Kind,
    doc: str,
    *,
    record: str = CONFIG,
    default: object = MISSING,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    size: int | None = None,
) -> Any:
    """Declare a field stored under a key of a record; see `FieldSpec`."""
    return _field(FieldSpec(record, name, kind, doc, low, high, choices, size), default)


def _field(spec: FieldSpec, default: object) -> Any:
    metadata = {_SPEC: spec}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def specs(kind: type[Any]) -> dict[str, FieldSpec]:
    """Return attribute → `FieldSpec` of a request class."""
    return {one.name: one.metadata[_SPEC] for one in fields(kind)}


def is_optional(kind: type[Any], name: str) -> bool:
    """Return whether a request may lack a field."""
    return _by_name(kind)[name].default is not MISSING


def parse(kind: type[R], content: RecordDict) -> R:
    """Parse a request.

    Args:
        kind: its class; content: of the message.

    Raises:
        MessageError: a field is unknown, missing or invalid; the text names it.
    """
    declared = specs(kind)
    known: dict[str, dict[str, str]] = {}  # record → key → attribute
    for attribute, spec in declared.items():
        known.setdefault(spec.record, {})[spec.key] = attribute
    values: dict[str, Any] = {}
    for name, record in content.items():
        if name not in known:
            raise MessageError(f'a {kind.__name__} has no record "{name}"')
        read = _read_arrays if "" in known[name] else _read_keys
        values |= read(kind, name, record, known[name], declared)
    missing = [
        declared[name]
        for name, one in _by_name(kind).items()
        if name not in values and one.default is MISSING
    ]
    if missing:
        first = missing[0]
        raise MessageError(f'a {kind.__name__} lacks "{first.key or first.record}"')
    return kind(**values)


def _read_arrays(
    kind: type[Any], name: str, record: object, known: Mapping[str, str], declared: Mapping[str, FieldSpec]
) -> dict[str, Any]:
    if not isinstance(record, ArrayRecord):
        raise MessageError(f'the record "{name}" of a {kind.__name__} contains no arrays')
    if not is_finite(record):
        raise MessageError(f'the record "{name}" of a {kind.__name__} contains NaN or infinity')
    return {known[""]: record}


def _read_keys(
    kind: type[Any], name: str, record: object, known: Mapping[str, str], declared: Mapping[str, FieldSpec]
) -> dict[str, Any]:
    if not isinstance(record, ConfigRecord):
        raise MessageError(f'the record "{name}" of a {kind.__name__} is not a config record')
    found: dict[str, Any] = {}
    for entry, value in record.items():
        if entry not in known:
            raise MessageError(f'a {kind.__name__} has no key "{entry}" in its record "{name}"')
        declared[known[entry]].check(value)
        found[known[entry]] = tuple(value) if isinstance(value, list) else value
    return found


def to_content(request: Any) -> RecordDict:
    """Write a request as the content of a message; fields that are `None` are omitted."""
    content = RecordDict()
    configs: dict[str, dict[str, Any]] = {}
    for attribute, spec in specs(type(request)).items():
        value = getattr(request, attribute)
        if spec.kind == "arrays":
            if value is not None:
                content[spec.record] = value
        else:
            entries = configs.setdefault(spec.record, {})
            if value is not None:
                entries[spec.key] = list(value) if isinstance(value, tuple) else value
    for name, entries in configs.items():
        content[name] = ConfigRecord(entries)
    return content


def to_config(request: Any) -> ConfigRecord:
    """Return the config record of a request, for strategies to complete."""
    return to_content(request).config_records[CONFIG]


def _by_name(kind: type[Any]) -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(kind)}
