"""Shoulder exercises recorded by a smartwatch; docs/data/wearables.md is the data card."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations.datasets.loading import package_folder, spread
from shoal.simulations.datasets.raw import Raw

STEPS = 100  # 2 s at 50 Hz


def read() -> tuple[np.ndarray, pa.Table, tuple[str, ...]]:
    """Return windows (rows, 100, 6) float32, columns exercise and subject, and the exercise names.

    Windows do not overlap, so rows share no measurements.
    """
    path = package_folder("seglearn", "wearables") / "data" / "watch_dataset.npy"
    try:
        # Reading a pickle can run code: this one is part of a package pinned by hash.
        found = np.load(path, allow_pickle=True).item()
    except (OSError, ValueError) as error:
        raise UnreadableDataError(f"{path.name} of the package seglearn cannot be read: {error}") from error
    windows, exercises, subjects = [], [], []
    for series, exercise, subject in zip(found["X"], found["y"], found["subject"], strict=True):
        count = len(series) // STEPS
        windows.append(np.asarray(series[: count * STEPS], np.float32).reshape(count, STEPS, -1))
        exercises += [int(exercise)] * count
        subjects += [f"subject {int(subject):02d}"] * count
    table = pa.table({"exercise": exercises, "subject": subjects})
    return np.concatenate(windows), table, tuple(found["y_labels"])


def load(scenario: Scenario) -> Population:
    """Load the population; sites are the ten subjects."""
    windows, table, names = read()
    raw = Raw(table, label="exercise", site="subject", tensors={"motion": windows}, classes=names)
    return spread(raw, scenario)
