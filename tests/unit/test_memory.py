"""The memory that the engine plans with, against what the system itself says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from shoal.common.config import ResourcesConfig
from shoal.common.memory import memory_bytes, resident_bytes
from shoal.simulations.engine.cluster import Room, worker_count

MEMINFO = Path("/proc/meminfo")


@pytest.mark.skipif(not MEMINFO.exists(), reason="needs Linux")
def test_memory_is_that_of_the_machine_or_of_the_container() -> None:
    total = re.search(r"MemTotal:\s+(\d+) kB", MEMINFO.read_text())
    assert total is not None
    assert 0 < memory_bytes() <= int(total[1]) * 1024


@pytest.mark.skipif(not MEMINFO.exists(), reason="needs Linux")
def test_resident_memory_grows_by_what_is_allocated() -> None:
    before = resident_bytes()
    kept = np.ones(64 << 20, np.uint8)
    assert resident_bytes() - before == pytest.approx(len(kept), rel=0.2)


def test_workers_are_no_more_than_have_room() -> None:
    """2.5 GiB hold two workers of at least 1 GiB; who asks for four gets four."""
    room = Room(cores=16, memory=5 << 29)
    assert worker_count(ResourcesConfig(), 100, room) == 2
    assert worker_count(ResourcesConfig(workers=4), 100, room) == 4
