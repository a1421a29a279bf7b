"""What all tests share: a quiet, single-threaded, offline environment, and one Ray session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from shoal.common.environment import PROCESS

# Set before TensorFlow, Ray or Flower is imported, and inherited by the processes that tests start. One
# thread each: workers share the machine, and sums are then always taken in the same order.
os.environ.update(
    PROCESS,
    CUDA_VISIBLE_DEVICES="",
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
    OMP_NUM_THREADS="1",
    RAY_DEDUP_LOGS="0",
)

# A machine that others use too is not the fault of the code under test.
settings.register_profile("shoal", deadline=None)
settings.load_profile("shoal")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray of two workers for all tests that need it: starting it takes seconds."""
    import ray

    # Logical CPUs: room for several pools of two workers side by side.
    ray.init(address="local", num_cpus=8, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


def pytest_collection_finish() -> None:
    """Keep what importing the tests has made out of garbage collection.

    Flower's strategies collect garbage after every reply, which walks through all objects of TensorFlow,
    Ray and Flower each time: without this, nine tenths of the time of tests of strategies.
    """
    gc.collect()
    gc.freeze()
