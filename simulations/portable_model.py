"""A model given as a Python object: a function or class of a script, or a Keras model.

The scenario carries the object itself. Its config only records that there was one, `model.name =
"python:NAME"`, and a value read from a file never becomes such an object.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

from pydantic import PrivateAttr

from shoal.common.config import ModelConfig


class PortableFunction:
    """A function that other processes can call although they cannot import it.

    Args:
        pickled: the function, by value, so that its module need not exist where it is called.
        function: the same function in this process; `None` unpickles it on first use.
    """

    def __init__(self, pickled: bytes, function: Callable[..., Any] | None = None) -> None:
        self._pickled = pickled
        self._function = function

    @property
    def function(self) -> Callable[..., Any]:
        """The function."""
        if self._function is None:
            self._function = pickle.loads(self._pickled)
        return self._function

    @property
    def digest(self) -> str:
        """SHA-256 of the pickled function, including the globals that it uses."""
        return hashlib.sha256(self._pickled).hexdigest()

    def __reduce__(self) -> tuple[type[PortableFunction], tuple[bytes]]:
        return PortableFunction, (self._pickled,)


class GivenModelConfig(ModelConfig):
    """A model section with the object that it stands for; only the section's keys are written to files."""

    _builder: PortableFunction = PrivateAttr()

    @classmethod
    def of(cls, model: ModelConfig, builder: PortableFunction) -> GivenModelConfig:
        """Return a section with the keys of `model`, built by `builder`."""
        given = cls(**model.model_dump())
        given._builder = builder
        return given

    @property
    def builder(self) -> PortableFunction:
        """Builds the model."""
        return self._builder

    @property
    def build_function(self) -> Callable[..., Any]:
        """The function that builds the model, for `common/models/users_own.py`."""
        return self._builder.function


def model_identity(model: ModelConfig) -> tuple[object, ...]:
    """Return a key that two sections share only if they build the same model, except initial weights."""
    keys = model.model_dump()
    if isinstance(model, GivenModelConfig):
        return keys, model.builder.digest
    module, _, name = model.name.partition(":")
    # A reloaded module has a new function of that name.
    return keys, getattr(sys.modules.get(module), name, None) if name else None
