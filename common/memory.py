"""Available memory, memory used by this process, and a guard against garbage collection."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int:
    """Return the memory available to processes here: the machine's, or a container's limit if lower."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _GROUP_LIMITS:
        try:
            limit = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():  # "max" if there is no limit
            found.append(int(limit))
    return min(found)


def resident_bytes() -> int:
    """Return the memory that this process uses; 0 where the system does not report it (macOS)."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Exclude all objects alive now from garbage collection until the end of the `with` block.

    Python can only unfreeze all objects at once. So if the caller has already frozen some, nothing more is
    frozen, and the caller's stay frozen.
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
