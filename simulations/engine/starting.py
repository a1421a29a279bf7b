"""Tells when Ray's workers will never start, and why; Ray itself starts them again for ever."""

from __future__ import annotations

import re
from pathlib import Path

from ray._private import worker  # no public way leads to the logs of this process's own session

from shoal.common.errors import WorkerError

CRASHED_S = 45.0  # until an error in the log counts as the reason; a busy machine starts workers in seconds
PATIENCE_S = 300.0  # until nothing in the log is an error too
LOOK_S = 5.0  # between two looks
_QUOTED = 12  # lines of the log
_ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b|not found|No such file|cannot", re.MULTILINE)


def refuse_stuck(waited: float) -> None:
    """Raise if workers that have been starting for `waited` seconds will not start.

    Raises:
        WorkerError: it quotes the log of the processes, which have not read any rows yet.
    """
    if waited < CRASHED_S:
        return
    log = _errors()
    if waited < PATIENCE_S and not _ERROR.search(log):
        return
    lines = [line for line in log.splitlines() if line.strip()][-_QUOTED:]
    quoted = "".join(f"\n  | {line}" for line in lines) if lines else " Their log is empty."
    raise WorkerError(
        f"workers did not start within {waited:.0f} s.{' Their log ends with:' if lines else ''}{quoted}",
        hint="a module named like one of Python's own, an old PYTHONPATH or a damaged installation do this; "
        "--backend serial needs no workers",
    )


def _errors() -> str:
    """Return what processes of this machine wrote to the error log before they had logs of their own."""
    node = worker.global_worker.node
    if node is None:
        return ""
    path = Path(node.get_logs_dir_path()) / "raylet.err"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
