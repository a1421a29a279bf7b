"""Imports Keras and TensorFlow without the lines that TensorFlow's C++ part writes to the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def load_keras() -> None:
    """Import Keras and start TensorFlow, which takes seconds; further calls do nothing.

    On a machine without a GPU TensorFlow says so, twice, before it reads how much it should say
    (TF_CPP_MIN_LOG_LEVEL). Python errors of the import are raised as always.
    """
    if "keras" in sys.modules:
        return
    with _silent_stderr():
        import keras

        keras.ops.zeros(())  # the second line comes when the first tensor is made


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Point file descriptor 2, which C++ writes to, at nothing for a while."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
