"""How much memory there is, and how much of it this process holds."""

from __future__ import annotations

import os
from pathlib import Path

_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int:
    """Return the memory that processes here may use: the machine's, or less where a container has a limit."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _GROUP_LIMITS:
        try:
            told = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if told.isdigit():  # "max" where there is no limit
            found.append(int(told))
    return min(found)


def resident_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not tell it (macOS)."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
