"""Membership inference by a threshold on the loss.

Source: Yeom, Giacomelli, Fredrikson, Jha: Privacy Risk in Machine Learning: Analyzing the Connection to
Overfitting, CSF 2018, section 3. Deviation: all thresholds are used (a ROC curve), not only the mean
training loss.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.schema import Task

Rows = NDArray[Any]
_LEAST: Final = 1e-7  # float32 probabilities closer to 0 or 1 than this are not informative


def likelihood(labels: Rows, predictions: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability of each row's own class and of all others, (rows,) each.

    Args:
        labels: class indices (rows,); predictions: probabilities (rows, classes) or (rows, 1).
    """
    p = predictions.astype(np.float64)
    if p.shape[1] == 1:
        p = np.column_stack([1 - p[:, 0], p[:, 0]])
    own = np.take_along_axis(p, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.clip(own, _LEAST, 1), np.clip(p.sum(axis=1) - own, _LEAST, 1)


def losses(task: Task, labels: Rows, predictions: Rows) -> NDArray[np.float64]:
    """Return the loss of each row, (rows,): cross-entropy of classes, squared error of numbers."""
    if task == "regression":
        return np.square(predictions[:, 0].astype(np.float64) - labels)
    return -np.log(likelihood(labels, predictions)[0])
