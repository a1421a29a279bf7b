"""Makes the environments of peers that cannot live beside shoal: each has its own pinned packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.children import SideError

_HERE: Final = Path(__file__).parent
_FOLDER: Final = _HERE / ".peers"


def interpreter(peer: str) -> str:
    """Return the Python of a peer's environment, which is made on first use.

    Args:
        peer: benchmarks/requirements-PEER.txt has its packages.

    Raises:
        SideError: it cannot be installed; the text is pip's.
    """
    wanted = (_HERE / f"requirements-{peer}.txt").read_text(encoding="utf-8")
    folder = _FOLDER / peer
    python, made_of = folder / "bin" / "python", folder / "made-of.txt"
    if made_of.is_file() and made_of.read_text(encoding="utf-8") == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], peer)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "-r", str(_HERE / f"requirements-{peer}.txt")], peer)
    made_of.write_text(wanted, encoding="utf-8")
    return str(python)


def versions(peer: str) -> dict[str, str]:
    """Return the packages that matter in a peer's environment, for the record."""
    lines = (_HERE / f"requirements-{peer}.txt").read_text(encoding="utf-8").split()
    pinned = dict(line.split("==") for line in lines)
    return {f"{peer}: {name}": pinned[name] for name in _TOLD if name in pinned}


_TOLD: Final = ("pfl", "fedjax", "tensorflow", "tf_keras", "jax")


def _run(command: list[str], peer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        raise SideError(f"{peer} cannot be installed here: {' '.join(errors[:3]) or done.stderr[-300:]}")
