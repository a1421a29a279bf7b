"""Scenario files: TOML read into a `Scenario`, with all problems told at once, and written back."""

from __future__ import annotations

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
from shoal.common.errors import ConfigError, nearest

BUILTIN_SCENARIOS = Path(__file__).parents[1] / "scenarios"


def load_scenario(
    source: str | Path, overrides: Sequence[str] = (), *, builtin: Path = BUILTIN_SCENARIOS
) -> Scenario:
    """Read a scenario and check all that its sections can check by themselves.

    Args:
        source: path of a TOML file, or the name of a built-in scenario. What looks like a path (a
            `.toml` ending or a separator) is only tried as one; another name is tried as a built-in
            one first, so that a folder of the same name does not hide it.
        overrides: `key=value` texts, e.g. `training.rounds=5`. The value is read as TOML, and as
            text where it is not TOML or the key wants text; a relative `data.path` is relative to
            the current folder here, and to the scenario file within it.
        builtin: folder of the built-in scenarios, `NAME.toml` each.

    Raises:
        ConfigError: with one line a problem, each with its place.
    """
    path = _find(str(source), builtin)
    text = _read(path)
    table = _parse(text, path)
    _make_path_absolute(table, path.parent)
    places, problems = _apply(table, overrides)
    lines = key_lines(text)

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
    """Write a scenario as TOML that `load_scenario` reads back to an equal one.

    TOML has no null, so what is `None` is left out.
    """
    return tomli_w.dumps(_without_none(scenario.model_dump()))


def builtin_names(builtin: Path = BUILTIN_SCENARIOS) -> list[str]:
    """Return the names of the scenarios in a folder, sorted."""
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
    return f"It holds {', '.join(files[:5])}: name one of them." if files else None


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
            f"line {line}: a byte is not UTF-8 text", source=str(path), hint="Save the file as UTF-8."
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
    """Guess the commonest slip: a text value without quotes."""
    line = text.split("\n")[int(found[1]) - 1] if found else ""
    if unquoted := re.match(r"\s*([\w.-]+)\s*=\s*([A-Za-z][^\"'#]*?)\s*(#.*)?$", line):
        return f'Text needs quotes: {unquoted[1]} = "{unquoted[2]}"'
    return None


def _make_path_absolute(table: dict[str, Any], folder: Path) -> None:
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        data["path"] = str((folder / Path(data["path"]).expanduser()).absolute())


def _apply(table: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[Keys, str], list[str]]:
    """Write the overrides into `table`; return the place of each and what cannot be read."""
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
        if not _put(table, keys, _override_value(keys, raw.strip())):
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
    if len(parsed) > 1:  # a newline smuggled in further keys
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
    """Copy `table` with a tuple for each TOML array that a field wants as one."""
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
