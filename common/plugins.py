"""User-defined objects by name, `package.module:name`: the only place that imports user code.

Modules are looked up in the current directory before the installed packages, as for `python script.py`.
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
    """Whether a name is `package.module:name` rather than a built-in name."""
    return ":" in name


def search_current_directory() -> None:
    """Make modules in the current directory importable."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def form_problems(key: str, path: str, name: str = "function") -> list[str]:
    """Return the errors in the form of `package.module:name`, one line each.

    Args:
        key: the scenario key that holds it; path: the text; name: placeholder for the object in the error
            text.
    """
    module, _, attribute = path.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), attribute)):
        return []
    return [f'{key}: "{path}" is not of the form package.module:{name}']


def package_problems(key: str, path: str) -> list[str]:
    """Return the problems of `form_problems`, or that there is no such package; runs none of its code."""
    problems = form_problems(key, path)
    top = path.partition(":")[0].partition(".")[0]
    search_current_directory()
    if problems or top in sys.modules or importlib.util.find_spec(top) is not None:
        return problems
    return [f'{key}: "{path}": there is no package or module "{top}" in {Path.cwd()} or installed']


def load_object(key: str, path: str) -> Any:
    """Import a user module and return one of its objects.

    Args:
        key: the scenario key or argument that holds the path, for the error text.
        path: `package.module:name`.

    Raises:
        ConfigError: the module cannot be imported, or has no object of that name.
    """
    module, _, attribute = path.partition(":")
    search_current_directory()
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a user module may raise anything, or be a script that ends
        raise ConfigError(
            f'{key}: "{path}" cannot be loaded: {type(error).__name__}: {error}', hint=_HINT
        ) from error
