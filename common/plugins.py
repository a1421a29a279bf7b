"""Objects of the user's own by name, `package.module:name`: the one place that imports a user's code.

Modules are looked up in the current directory before the installed packages, as `python script.py` would.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from shoal.common.errors import ConfigError

_HINT = "modules are looked up in the current directory and among the installed packages"


def is_users_own(name: str) -> bool:
    """Whether a name is `package.module:name` rather than one of a table of ours."""
    return ":" in name


def search_current_directory() -> None:
    """Let modules be imported from the current directory."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def form_problems(key: str, path: str, name: str = "function") -> list[str]:
    """Return what is wrong with the form of `package.module:name`, one line each.

    Args:
        key: the key of the scenario that holds it; path: the text; name: what it is to name.
    """
    module, _, attribute = path.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), attribute)):
        return []
    return [f'{key}: "{path}" is not of the form package.module:{name}']


def package_problems(key: str, path: str) -> list[str]:
    """Return what `form_problems` does, or that there is no such package; runs none of its code."""
    problems = form_problems(key, path)
    top = path.partition(":")[0].partition(".")[0]
    search_current_directory()
    if problems or top in sys.modules or importlib.util.find_spec(top) is not None:
        return problems
    return [f'{key}: "{path}": there is no package or module "{top}" in {Path.cwd()} or installed']


def load_object(key: str, path: str) -> Any:
    """Import a module of the user's own and return one of its objects.

    Args:
        key: the key of the scenario, or the argument, that holds the path, for the error.
        path: `package.module:name`.

    Raises:
        ConfigError: it cannot be imported, or the module has no object of that name.
    """
    module, _, attribute = path.partition(":")
    search_current_directory()
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's own may raise anything
        raise ConfigError(
            f'{key}: "{path}" cannot be loaded: {type(error).__name__}: {error}', hint=_HINT
        ) from error
