"""Turns pydantic's validation errors into plain messages that name the place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from shoal.common.config import Scenario
from shoal.common.config.places import Keys
from shoal.common.errors import nearest, unknown_name
from shoal.common.printable import printable

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": 'text in quotes, "like this"',
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": 'a list, ["like", "this"]',
    "dict_type": "a table of keys",
    "model_type": "a table of keys",
    "model_attributes_type": "a table of keys",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "at most {}"),
}
_TYPE_NAMES = {bool: "true/false", int: "a whole number", float: "a number", str: "text", list: "a list"}


def describe(error: ValidationError, place: Callable[[Keys], str]) -> list[str]:
    """Return one line per problem, in the order of the scenario's sections.

    Args:
        error: raised by pydantic for the whole scenario.
        place: maps keys to the place where the user set them ("line 12", "--set ..."), or "".
    """
    problems = []
    for item in error.errors(include_url=False):
        keys = tuple(str(part) for part in item["loc"])
        where = place(keys)
        head = f"{where}, " if where else ""
        dotted = re.sub(r"\.(\d+)", r"[\1]", ".".join(keys))
        for text in _explain(item, keys):
            problems.append(f"{head}{dotted}: {text}")
    return problems


def accepts_text(keys: Keys) -> bool:
    """Whether the field at `keys` holds text, so that any value can be read as text."""
    field = _field(keys)
    if field is None:
        return False
    kind = field.annotation
    return kind is str or (get_origin(kind) in (Union, UnionType) and str in get_args(kind))


def sequence_fields(model: type[BaseModel]) -> tuple[dict[str, type[BaseModel]], set[str]]:
    """Return the fields of `model` that are sections, and the names of the fields that are tuples."""
    sections: dict[str, type[BaseModel]] = {}
    sequences = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections[name] = kind
        elif get_origin(kind) is tuple:
            sequences.add(name)
    return sections, sequences


def _explain(item: Mapping[str, Any], keys: Keys) -> list[str]:
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return [_unknown_key(keys)]
    if kind == "missing":
        return _missing(keys)
    if kind == "literal_error":
        return [_unknown_value(keys, value)]
    if kind == "value_error":
        return [str(item["ctx"]["error"])]
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return [f"must be {words.format(item['ctx'][bound])}, got {value!r}"]
    if kind == "string_too_short":
        return ["must not be empty"]
    if kind == "string_pattern_mismatch":
        wanted = 'only letters, digits, ".", "_" and "-"' if keys[-1] == "name" else "one line of text"
        return [f'may contain {wanted}, got "{printable(str(value))}"']
    expected = _KINDS.get(kind)
    if expected is None:  # a kind of check that this table does not know yet
        return [f"{item['msg']}, got {_show(value)}"]
    return [f"expected {expected}, got {_show(value)}"]


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "a table of keys"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = (
        f'"{value}"' if isinstance(value, str) else repr(list(value) if isinstance(value, tuple) else value)
    )
    name = _TYPE_NAMES.get(list if isinstance(value, tuple) else type(value))
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{shown} ({name})" if name else shown


def _section(keys: Keys) -> type[BaseModel] | None:
    """Return the section at `keys`, or `None` if there is none."""
    model: type[BaseModel] = Scenario
    for key in keys:
        field = model.model_fields.get(key)
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        model = kind
    return model


def _field(keys: Keys) -> FieldInfo | None:
    section = _section(keys[:-1]) if keys else None
    return section.model_fields.get(keys[-1]) if section else None


def _unknown_key(keys: Keys) -> str:
    section = _section(keys[:-1])
    known = list(section.model_fields) if section else []
    section_name = f"[{'.'.join(keys[:-1])}]" if len(keys) > 1 else "the top level"
    if homes := _homes(keys[-1]):
        return f"there is no such key in {section_name}; did you mean {' or '.join(homes[:3])}?"
    near = nearest(keys[-1], known)
    guess = f'did you mean "{near}"? ' if near else ""
    return f"unknown key; {guess}keys of {section_name}: {', '.join(known)}"


def _homes(key: str) -> list[str]:
    """Return the dotted names of all fields called `key`."""
    found = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            if name == key:
                found.append(prefix + name)
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                walk(kind, f"{prefix}{name}.")

    walk(Scenario, "")
    return found


def _missing(keys: Keys) -> list[str]:
    section = _section(keys)
    if section is not None:
        required = [name for name, field in section.model_fields.items() if field.is_required()]
        return [f"the table [{'.'.join(keys)}] is missing; it must set {', '.join(required)}"]
    field = _field(keys)
    about = f" ({field.description})" if field and field.description else ""
    return [f"this key is missing{about}"]


def _unknown_value(keys: Keys, value: object) -> str:
    choices = _choices(keys)
    if not isinstance(value, str):
        return f"expected one of {', '.join(choices)}, got {_show(value)}"
    # For an element of a list, the last key is its index.
    what = keys[-2] if keys[-1].isdigit() and len(keys) > 1 else keys[-1]
    return unknown_name(what.removesuffix("s") if keys[-1].isdigit() else what, value, choices)


def _choices(keys: Keys) -> list[str]:
    field = _field(keys[:-1] if keys[-1].isdigit() else keys)
    return _literal_values(field.annotation) if field else []


def _literal_values(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [value for part in get_args(kind) for value in _literal_values(part)]
