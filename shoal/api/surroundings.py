"""Leaves the caller's process as it was: environment, logging and garbage collection."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from shoal.common.environment import PROCESS


@contextmanager
def surroundings() -> Iterator[None]:
    """Give a run what it needs of the process, and take it back at the end, also after an exception.

    Libraries read some variables when they are imported, and set others; the root logger gets handlers.
    Signal handlers are given back by what takes them (`simulations/interrupts.py`).
    """
    variables = dict(os.environ)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    thresholds, collecting = gc.get_threshold(), gc.isenabled()
    for name, value in PROCESS.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        root.handlers[:] = handlers
        root.setLevel(level)
        gc.set_threshold(*thresholds)
        (gc.enable if collecting else gc.disable)()
