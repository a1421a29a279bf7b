"""Scenarios in Python: load one, change keys, with the same checks and messages as scenario files have."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ValidationError

from shoal.common import errors
from shoal.common.config import Scenario
from shoal.common.config.file import dump_toml, load_scenario
from shoal.common.config.places import Keys, key_parts
from shoal.common.config.problems import describe, sequence_fields
from shoal.common.errors import ConfigError
from shoal.common.journal import plain
from shoal.simulations.portable_model import GivenModelConfig

# Keywords for the keys that are changed most often.
KEYWORDS: Final[Mapping[str, str]] = {
    "rounds": "training.rounds",
    "learning_rate": "training.learning_rate",
    "local_epochs": "training.local_epochs",
    "batch_size": "training.batch_size",
    "strategy": "strategy.name",
    "clients_per_round": "strategy.clients_per_round",
    "backend": "resources.backend",
    "workers": "resources.workers",
    "compare": "output.compare",
    "output": "output.directory",
}


class EditableScenario(Scenario):
    """A scenario that can be loaded and changed in Python; `shoal.Scenario`.

    It is as frozen as any: changing one gives another. Changes are given by section, e.g.
    `training={"rounds": 5}`, where keys that are not named stay; or with a keyword of `KEYWORDS`, e.g.
    `rounds=5`, `strategy="FedAdam"`. `None` puts a key back to its default.
    """

    @classmethod
    def load(cls, source: str | Path | Scenario, **changes: Any) -> Self:
        """Load a scenario file or a built-in scenario, and change it.

        Args:
            source: path of a TOML file, the name of a built-in scenario, or a scenario.
            changes: as the class says.

        Raises:
            ConfigError: with one line a problem.
        """
        loaded = source if isinstance(source, Scenario) else load_scenario(source)
        return cls._changed(loaded, changes)

    def with_(self, **changes: Any) -> Self:
        """Return the scenario with some keys changed, as the class says.

        Raises:
            ConfigError: with one line a problem.
        """
        return self._changed(self, changes)

    @classmethod
    def _changed(cls, scenario: Scenario, changes: Mapping[str, Any]) -> Self:
        table = tomllib.loads(dump_toml(scenario))
        put_changes(table, changes)
        return cls._of(table, scenario)

    @classmethod
    def _of(cls, table: Mapping[str, Any], before: Scenario | None) -> Self:
        """Validate a table of sections; a model that was given as an object goes over from `before`."""
        try:
            # Strict, and as JSON, in which lists stand for tuples: "5" is not 5 and true is not 1.
            found = cls.model_validate_json(json.dumps(plain(table)), strict=True)
        except ValidationError as error:
            raise ConfigError(describe(error, lambda keys: "")) from None
        given = None if before is None else before.model
        if isinstance(given, GivenModelConfig) and given.name == found.model.name:
            return found.model_copy(update={"model": GivenModelConfig.of(found.model, given.builder)})
        return found


def new_scenario(table: Mapping[str, Any]) -> EditableScenario:
    """Return the scenario of a table of sections.

    Raises:
        ConfigError: with one line a problem.
    """
    return EditableScenario._of(table, None)


def put_changes(table: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Write changes into a table of sections.

    Args:
        table: sections as in a scenario file; it is changed.
        changes: sections, keywords of `KEYWORDS`, or dotted keys, each with its value.

    Raises:
        ConfigError: a keyword is unknown, or a dotted key is none.
    """
    problems = []
    for name, value in changes.items():
        keys = _keys(name, value)
        if keys is None:
            known = sorted({*KEYWORDS, *Scenario.model_fields})
            problems.append(errors.unknown_name("keyword", name, known))
        else:
            _put(table, keys, value, Scenario)
    if problems:
        raise ConfigError(problems)
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        data["path"] = str(Path(data["path"]).expanduser().absolute())


def _keys(name: str, value: Any) -> Keys | None:
    if name in KEYWORDS and not isinstance(value, Mapping):
        return key_parts(KEYWORDS[name])
    if name in Scenario.model_fields:
        return (name,)
    try:
        parts = key_parts(name)
    except ValueError:
        return None
    return parts if len(parts) > 1 else None


def _put(table: dict[str, Any], keys: Keys, value: Any, model: type[BaseModel] | None) -> None:
    """Set one key; a mapping for a section is merged into what is there, any other value replaces it."""
    key, *rest = keys
    section = sequence_fields(model)[0].get(key) if model is not None else None
    if rest:
        inner = table.setdefault(key, {})
        if isinstance(inner, dict):
            _put(inner, tuple(rest), value, section)
        else:  # for the validation to refuse
            table[key] = {".".join(rest): value}
    elif section is not None and isinstance(value, Mapping):
        inner = table.setdefault(key, {})
        for name, part in value.items():
            _put(inner, (str(name),), part, section)
    elif value is None:
        table.pop(key, None)
    else:
        table[key] = str(value) if isinstance(value, Path) else value
