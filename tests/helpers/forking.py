"""Processes of `shoal` that start at once: forked from one that has imported everything, and run nothing.

An import of TensorFlow takes six seconds of a processor, which a test that kills a process does not need
to pay for each kill. What is killed is a process of its own nevertheless.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tensorflow", "keras", "shoal.cli", "shoal.simulations.run", __name__])


def start_shoal(command: Sequence[str], before: str = "") -> BaseProcess:
    """Start a command of shoal; it says nothing.

    Args:
        command: as on the command line, without "shoal".
        before: Python that runs first in that process.
    """
    process = _CONTEXT.Process(target=_run, args=(list(command), before))
    process.start()
    return process


def _run(command: list[str], before: str) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    exec(before, {})

    from shoal.cli import main

    main(command)
