"""Scenario files: read TOML into a `Scenario`, report all problems at once, and write it back."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from shoal.common.config import Scenario
from shoal.common.config.places import Keys, key_lines, key_parts, line_of
from shoal.common.config.problems import accepts_text, describe, sequence_fields
from shoal.common.config.renamed import rename_keys, warning_text
from shoal.common.errors import ConfigError, nearest

BUILTIN_SCENARIOS = Path(__file__).parents[1] / "scenarios"

_log = logging.getLogger("shoal.config")


def load_scenario(
    source: str | Path, overrides: Sequence[str] = (), *, builtin: Path = BUILTIN_SCENARIOS
) -> Scenario:
    """Read a scenario and run every check that needs one section only.

    Args:
        source: path of a TOML file, or the name of a built-in scenario. Anything with a `.toml`
            suffix or a path separator is a path. Any other name is looked up among the built-in
            scenarios first, so that a folder of the same name does not hide one.
        overrides: `key=value` texts, e.g. `training.rounds=5`. The value is parsed as TOML; it is
            taken as text if it is not valid TOML or if the key holds text. A relative `data.path` is
            relative to the current directory in an override, and to the scenario file in the file.
        builtin: folder of the built-in scenarios, with one `NAME.toml` each.

    A key that was renamed is read under its new name, and a warning says so.

    Raises:
        ConfigError: with one line per problem, which names the line or the override.
    """
    path = _find(str(source), builtin)
    text = _read(path)
    table = _parse(text, path)
    _make_path_absolute(table, path.parent)
    lines = key_lines(text)
    renaming_problems = _rename_in_file(table, lines, path)
    places, problems = _apply(table, overrides)
    problems = renaming_problems + problems

    def place(keys: Keys) -> str:
        for length in range(len(keys), 0, -1):
            if keys[:length] in places:
                return places[keys[:length]]
        if line := line_of(lines, keys):
            return f"line {line}"
        return next((text for below, text in places.items() if below[: len(keys)] == keys), "")

    try:
        # strict: TOML has types, so "5" is not 5 and true is not 1.
        scenario = Scenario.model_validate(_with_tuples(table, Scenario), strict=True)
    except ValidationError as error:
        problems += describe(error, place)
    if problems:
        raise ConfigError(problems, source=str(path))
    return scenario


def dump_toml(scenario: Scenario) -> str:
    """Return a scenario as TOML text; `load_scenario` reads it back to an equal scenario.

    TOML has no null, so keys that are `None` are omitted.
    """
    return tomli_w.dumps(_without_none(scenario.model_dump()))


def builtin_names(builtin: Path = BUILTIN_SCENARIOS) -> list[str]:
    """Return the sorted names of the scenarios in a folder."""
    return sorted(path.stem for path in builtin.glob("*.toml"))


def _find(source: str, builtin: Path) -> Path:
    names = builtin_names(builtin)
    if source in names:
        return builtin / f"{source}.toml"
    path = Path(source).expanduser()
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        raise ConfigError(f"{source} is a folder, not a scenario file", hint=_folder_hint(path))
    if path.suffix == ".toml" or len(path.parts) > 1:
        near = nearest(path.name, _files(path.parent))
        hint = f"Did you mean {path.parent / near}?" if near else None
        raise ConfigError(f"there is no file {source}", hint=hint)
    near = nearest(source, names)
    guess = f' Did you mean "{near}"?' if near else ""
    known = f" Built-in scenarios: {', '.join(names)}." if names else ""
    raise ConfigError(f'"{source}" is neither a file nor a built-in scenario.{guess}{known}')


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.toml"))


def _folder_hint(folder: Path) -> str | None:
    files = _files(folder)
    return f"It contains {', '.join(files[:5])}: give the path of one of them." if files else None


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        # Editors on Windows write a byte-order mark, which TOML does not allow.
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"line {line}: not valid UTF-8", source=str(path), hint="Save the file as UTF-8."
        ) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r" \(at [^()]*\)$", "", str(error))
        found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        last = len(text.rstrip("\n").split("\n"))
        where = f"line {found[1]}, column {found[2]}" if found else f"line {last}, at the end"
        problem = f"{where}: not valid TOML: {message[:1].lower()}{message[1:]}"
        raise ConfigError(problem, source=str(path), hint=_syntax_hint(text, found)) from error


def _syntax_hint(text: str, found: re.Match[str] | None) -> str | None:
    """Recognise the most common mistake: a text value without quotes."""
    line = text.split("\n")[int(found[1]) - 1] if found else ""
    if unquoted := re.match(r"\s*([\w.-]+)\s*=\s*([A-Za-z][^\"'#]*?)\s*(#.*)?$", line):
        return f'Text needs quotes: {unquoted[1]} = "{unquoted[2]}"'
    return None


def _make_path_absolute(table: dict[str, Any], folder: Path) -> None:
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        data["path"] = str((folder / Path(data["path"]).expanduser()).absolute())


def _rename_in_file(table: dict[str, Any], lines: dict[Keys, int], path: Path) -> list[str]:
    """Move renamed keys in `table`, with a warning each; return a problem where both names are set."""
    moved, doubled = rename_keys(table)
    for old, new in moved:
        _log.warning("%s", warning_text(f"{path}, line {line_of(lines, old)}", old, new))
        if old in lines:
            lines[new] = lines[old]
    return [
        f"line {line_of(lines, old)}, {'.'.join(old)}: this is the old name of {'.'.join(new)}, which is set "
        "too: remove the old one"
        for old, new in doubled
    ]


def _rename_in_override(keys: Keys, value: Any, place: str) -> tuple[Keys, Any]:
    """Return the keys and value of an override under their new names, with a warning if they changed."""
    table: dict[str, Any] = {}
    _put(table, keys, value)
    moved, _ = rename_keys(table)
    for old, new in moved:
        _log.warning("%s", warning_text(place, old, new))
        if keys == old:
            keys = new
    for key in keys:
        table = table[key]
    return keys, table


def _apply(table: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[Keys, str], list[str]]:
    """Write the overrides into `table`; return the place of each, and the problems."""
    places: dict[Keys, str] = {}
    problems: list[str] = []
    for override in overrides:
        place = f"--set {override}"
        dotted, equals, raw = override.partition("=")
        try:
            keys = key_parts(dotted.strip())
        except ValueError:
            keys = ()
        if not equals or not keys:
            problems.append(f"{place}: write it as key=value, e.g. --set training.rounds=5")
            continue
        keys, value = _rename_in_override(keys, _override_value(keys, raw.strip()), place)
        if not _put(table, keys, value):
            problems.append(f"{place}: {'.'.join(keys[:-1])} is a value, not a table of keys")
            continue
        if keys == ("data", "path"):
            _make_path_absolute(table, Path.cwd())
        places[keys] = place
    return places, problems


def _override_value(keys: Keys, raw: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    if len(parsed) > 1:  # the text has a newline and more keys after it
        return raw
    value = parsed["value"]
    return raw if accepts_text(keys) and not isinstance(value, str) else value


def _put(table: dict[str, Any], keys: Keys, value: Any) -> bool:
    inner: Any = table
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
    inner[keys[-1]] = value
    return True


def _with_tuples(table: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Copy `table`, turning each TOML array into a tuple where the field is one."""
    sections, sequences = sequence_fields(model)
    result = dict(table)
    for key, value in table.items():
        if key in sequences and isinstance(value, list):
            result[key] = tuple(value)
        elif key in sections and isinstance(value, dict):
            result[key] = _with_tuples(value, sections[key])
    return result


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value if item is not None]
    return value
