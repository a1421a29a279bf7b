"""Runs one side of a comparison in a process of its own, and brings back what it measured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_MARK = "measured: "


class SideError(Exception):
    """A side could not be measured; the text says why."""


def measure(
    module: str,
    arguments: Mapping[str, Any],
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    cores: int = 0,
    timeout_s: float = 900,
) -> dict[str, Any]:
    """Run a module of this package as a program and return its answer.

    Args:
        module: its name within `benchmarks`; it calls `answer`.
        arguments: for it, as JSON.
        python: the interpreter, of another environment where the module needs one.
        environment: variables beside those of this process.
        cores: that it and its children may use together; 0 for all.
        timeout_s: after which it is ended.

    Raises:
        SideError: it failed, with the end of what it said.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **one_thread(), **(environment or {})}
    command = [python, "-m", f"benchmarks.{module}", json.dumps(dict(arguments))]
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: _pin(cores),
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise SideError(f"{module} took more than {timeout_s:g} s") from None
        finally:
            _end(child)
        said.seek(0)
        lines = said.read().splitlines()
    answers = [line for line in lines if line.startswith(_MARK)]
    if code or not answers:
        raise SideError(f"{module} ended with {code}: " + "\n".join(lines[-12:]))
    found: dict[str, Any] = json.loads(answers[-1].removeprefix(_MARK))
    return found


def answer(main: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Be the program that `measure` runs: arguments in, measurements out, both as JSON."""
    print(_MARK + json.dumps(main(json.loads(sys.argv[1]))), flush=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs and whatever it has started: the session that was made for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _pin(cores: int) -> None:
    """Keep this process, and all that it will start, to its first cores."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[: cores or len(allowed)])


def one_thread(threads: int = 1) -> dict[str, str]:
    """Return the variables that give TensorFlow's processes so many threads, and keep all sides quiet."""
    return {
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }
