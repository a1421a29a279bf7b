"""Accepts a model given as a Python object: how other processes build it, and how it is trained."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from shoal.common.errors import ModelError
from shoal.common.keras_loading import load_keras
from shoal.common.models.catalog import PYTHON_PREFIX
from shoal.simulations.portable_model import PortableFunction

if TYPE_CHECKING:
    import keras

_ACCEPTED = (
    'expected the name of a model ("mlp"), a keras.Model, or a function or class that builds one from '
    "(input_spec, num_classes)"
)


@dataclass(frozen=True, slots=True)
class GivenModel:
    """A model as accepted by `shoal.simulate`.

    Attributes:
        name: for model.name; builder: builds the model, `None` for a built-in model.
        training: keys of the training section that the model's `compile` sets.
    """

    name: str
    builder: PortableFunction | None
    training: Mapping[str, Any]


def take_model(model: object) -> GivenModel:
    """Return how to build a model in any process.

    Args:
        model: a name; a `keras.Model`, whose weights are the initial ones and whose `compile`, if called,
            determines how clients train; or a function or class that returns a model.

    Raises:
        ModelError: it is anything else, cannot be sent to other processes, or is compiled in a way that
            federated training does not support.
    """
    if isinstance(model, str):
        return GivenModel(model, None, {})
    if "keras" in sys.modules and _is_keras_model(model):
        from shoal.simulations.keras_settings import training_keys  # imports Keras

        name = PYTHON_PREFIX + _plain_name(getattr(model, "name", "model"))
        return GivenModel(name, portable(SavedModel.of(model)), training_keys(model))
    if not callable(model):
        raise ModelError(f"model: {type(model).__name__} is not a model", hint=_ACCEPTED)
    return GivenModel(PYTHON_PREFIX + _plain_name(getattr(model, "__name__", "model")), portable(model), {})


def portable(function: Callable[..., Any]) -> PortableFunction:
    """Pickle a function with the classes and functions of its module that it uses.

    Raises:
        ModelError: it uses something that cannot be sent to another process.
    """
    from ray import cloudpickle  # Ray takes a second to import

    module = sys.modules.get(getattr(function, "__module__", ""))
    by_value = module is not None and _is_users(module)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return PortableFunction(cloudpickle.dumps(function), function)
    except Exception as error:  # the object's own pickling may raise anything
        raise ModelError(
            f"model: it cannot be sent to worker processes: {type(error).__name__}: {error}",
            hint="create what it uses (files, locks, other models) inside the function",
        ) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A Keras model as the bytes of its `.keras` file, with the user's classes that it consists of.

    Attributes:
        archive: the file; classes: by their names in the file.
    """

    archive: bytes
    classes: Mapping[str, type]

    @classmethod
    def of(cls, model: keras.Model) -> SavedModel:
        """Save a model.

        Raises:
            ModelError: it has no weights yet, or Keras cannot save it.
        """
        if not model.built:
            raise ModelError(
                f'model: "{model.name}" has no weights yet, because the shape of its input is unknown',
                hint="start it with keras.Input, or pass a function that builds it",
            )
        try:
            with TemporaryDirectory(prefix="shoal-") as folder:
                path = Path(folder) / "model.keras"
                model.save(path)
                saved = cls(path.read_bytes(), _users_classes(model))
            saved()  # a class whose constructor Keras cannot call again fails here, not in a worker
        except Exception as error:
            raise ModelError(
                f'model: Keras cannot save and load "{model.name}": {str(error).partition(chr(10))[0]}',
                hint="pass the function or class that builds it instead, or add get_config to its classes",
            ) from error
        return saved

    def __call__(self) -> keras.Model:
        """Return the model with its weights, uncompiled."""
        load_keras()
        import keras

        # Lambda layers are the user's own code, given as an object rather than read from a file.
        with keras.saving.custom_object_scope(dict(self.classes)), TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(self.archive)
            return keras.saving.load_model(path, compile=False, safe_mode=False)


def _is_keras_model(model: object) -> bool:
    import keras

    if isinstance(model, keras.Model) and keras.backend.backend() != "tensorflow":
        raise ModelError(
            f'model: Keras uses the backend "{keras.backend.backend()}", shoal needs TensorFlow',
            hint='set os.environ["KERAS_BACKEND"] = "tensorflow" before Keras is imported',
        )
    return isinstance(model, keras.Model)


def _users_classes(model: keras.Model) -> dict[str, type]:
    kinds = {type(layer) for layer in model._flatten_layers(include_self=True)}
    return {
        kind.__name__: kind for kind in kinds if not kind.__module__.startswith(("keras.", "tensorflow."))
    }


def _is_users(module: Any) -> bool:
    """Return whether a module is the user's own source, which workers may lack or have in an old version."""
    file = getattr(module, "__file__", None)
    installed = file is None or Path(file).is_relative_to(sys.prefix) or "site-packages" in file
    return not installed and module.__name__.partition(".")[0] not in ("shoal", "__main__")


def _plain_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "model"
