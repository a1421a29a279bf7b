"""The environment of a run: versions, machine and commit. No host name, user name or path."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from shoal.common.journal import now

PACKAGES = ("shoal", "flwr", "ray", "tensorflow", "keras", "numpy")


def describe(seed: int) -> dict[str, Any]:
    """Return the content of environment.json, without importing the packages listed in it."""
    return {
        "started": now(),
        "seed": seed,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "os": _operating_system(),
            "architecture": platform.machine(),
        },
        "git": _git(Path(__file__).resolve().parents[2]),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _operating_system() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']} ({kernel})"
    except (OSError, KeyError):
        return kernel


def _git(root: Path) -> dict[str, Any] | None:
    """Return the commit of shoal's own checkout; `None` if it was installed without one."""
    if not (root / ".git").exists():  # otherwise git might find an enclosing repository
        return None
    commit = _run_git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _run_git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changes)}


def _run_git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
