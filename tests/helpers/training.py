"""A small model and rows for it, for tests of local training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

ROWS, FEATURES = 23, 4


def make_model(optimizer: keras.optimizers.Optimizer, *, extras: bool = False) -> keras.Model:
    keras.utils.set_random_seed(3)
    layers: list[Any] = [keras.layers.Dense(6, activation="relu", kernel_regularizer="l2")]
    if extras:
        layers += [keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=optimizer, loss="binary_crossentropy")
    return model


def make_rows(seed: int = 0, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    return x, (x.sum(axis=1) > 0).astype(np.int32)
