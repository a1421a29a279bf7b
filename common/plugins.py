"""User-defined objects by name, `package.module:name`: the only place that imports user code.

Modules are looked up in the current directory after Python's own and the installed packages: a file that
happens to be called `random.py` or `types.py` would break Python itself, and every worker process.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from shoal.common.environment import SEARCHED
from shoal.common.errors import ConfigError

_HINT = "modules are looked up among the installed packages and in the current directory"


def is_users_own(name: str) -> bool:
    """Whether a name is `package.module:name` rather than a built-in name."""
    return ":" in name


def search_current_directory() -> None:
    """Make modules in the current directory importable, unless their names are taken.

    A worker searches the directory in which shoal was started.
    """
    here = os.environ.get(SEARCHED, str(Path.cwd()))
    if sys.path[-1:] != [here]:
        # Ray and `python -m` put it first.
        sys.path[:] = [*(path for path in sys.path if path not in ("", here)), here]


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
    _refuse_taken(key, path)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a user module may raise anything, or be a script that ends
        raise ConfigError(
            f'{key}: "{path}" cannot be loaded: {type(error).__name__}: {error}', hint=_HINT
        ) from error


def _refuse_taken(key: str, path: str) -> None:
    """Refuse a module of the current directory whose name is that of one of Python's or an installed one."""
    top = path.partition(":")[0].partition(".")[0]
    if not top.isidentifier():
        return
    here = Path(sys.path[-1])
    mine = [place for place in (here / f"{top}.py", here / top / "__init__.py") if place.is_file()]
    found = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    if not mine or found is None or found.origin is None:
        return
    other = Path(found.origin)  # no path for a module that is built in
    if not other.exists() or (
        any(other.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
        and not other.samefile(mine[0])
    ):
        raise ConfigError(
            f'{key}: "{path}": {mine[0]} cannot be imported, because its name is taken by {found.origin}',
            hint=f"rename {mine[0]}",
        )
