"""How much memory there is and how much this process holds; and objects that collections pass over."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Spare the garbage collector all objects that are alive now, until the end of the `with` block.

    Python can only unfreeze all objects at once. So where the caller has frozen some, nothing more is
    frozen, and the caller's stay as they are.
    """
    gc.collect()
    free = gc.get_freeze_count() == 0
    if free:
        gc.freeze()
    try:
        yield
    finally:
        if free:
            gc.unfreeze()
