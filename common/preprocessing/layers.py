"""The fitted preprocessing as Keras layers in front of a trained model; imports Keras.

It uses only Keras' own layers and operations, so that the saved file loads without shoal.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

import keras
import numpy as np
from keras import layers, ops

from shoal.common.preprocessing.encoder import float32
from shoal.common.preprocessing.spec import Categorical, PreprocessingSpec


def with_preprocessing(spec: PreprocessingSpec, trained: keras.Model) -> keras.Model:
    """Return a model of raw columns: the preprocessing as Keras layers, then `trained`.

    Its inputs are named after the columns (`input_name`), (rows, 1): numbers with NaN where missing, texts
    with "" where missing. A text column expects words cut by jieba and joined by spaces; images and
    sequences are used as they are.
    """
    raw, encoded = _encoded(spec)
    # In a model of their own, the names of our layers cannot meet those of columns.
    encode = keras.Model(list(raw.values()), encoded, name=f"preprocessing_of_{trained.name}")
    trained = _plain(trained, functional=type(encode))
    taken = (encode.name, trained.name)
    inputs = {
        input_name(column, taken): keras.Input(
            inner.shape[1:], dtype=inner.dtype, name=input_name(column, taken)
        )
        for column, inner in raw.items()
    }
    values = list(inputs.values())
    return keras.Model(inputs, trained(encode(values if len(values) > 1 else values[0])), name="raw_rows")


def without_preprocessing(whole: keras.Model) -> keras.Model:
    """Return the trained model of one that `with_preprocessing` made.

    Raises:
        ValueError: the model is not of that form.
    """
    inner = [layer for layer in whole.layers if isinstance(layer, keras.Model)]
    if not inner:
        raise ValueError("the model has no model inside")
    return inner[-1]


def _plain(trained: keras.Model, functional: type[keras.Model]) -> keras.Model:
    """Return a functional model of a class of the user's own as one of Keras' own, with the same layers.

    What such a class adds is about training, and Keras cannot load it without the class.

    Args:
        trained: any model; functional: Keras' class of functional models, which has no public name.
    """
    kind = type(trained)
    own = isinstance(trained, functional) and kind not in (functional, keras.Sequential)
    if own and kind.call is functional.call:
        return keras.Model(trained.input, trained.output, name=trained.name)
    return trained


def input_name(column: str, taken: Collection[str] = ()) -> str:
    """Return the name of a column's input: the column's, with "/" and "%" percent-encoded.

    Keras refuses a slash in a name, and a name that is already taken by a layer, whose first character is
    then encoded too. `column_name` returns the column.
    """
    found = column.replace("%", "%25").replace("/", "%2F")
    return f"%{ord(found[0]):02X}{found[1:]}" if found in taken else found


def column_name(name: str) -> str:
    """Return the column of an input."""
    return unquote(name)


def _encoded(spec: PreprocessingSpec) -> tuple[dict[str, Any], Any]:
    """Return the raw inputs by column, and what the preprocessing makes of them."""
    inputs: dict[str, Any] = {}
    if spec.tokens is not None:
        inputs[spec.tokens.name] = raw = keras.Input((1,), dtype="string")
        encoded = layers.TextVectorization(
            standardize=None,
            split="whitespace",
            output_sequence_length=spec.tokens.length,
            vocabulary=list(spec.tokens.vocabulary),
        )(raw)
    elif spec.image is not None:
        inputs[spec.image.name] = raw = keras.Input(spec.image.shape)
        encoded = layers.Rescaling(spec.image.factor)(raw)
    elif spec.sequence is not None:
        inputs[spec.sequence.name] = raw = keras.Input(spec.sequence.shape)
        variance = np.square(float32(spec.sequence.std))
        encoded = layers.Normalization(mean=float32(spec.sequence.mean), variance=variance)(raw)
    else:
        encoded = _table(spec, inputs)
    return inputs, encoded


def _table(spec: PreprocessingSpec, inputs: dict[str, Any]) -> Any:
    blocks = []
    if spec.numeric:
        for column in spec.numeric:
            inputs[column.name] = keras.Input((1,))
        raw = [inputs[column.name] for column in spec.numeric]
        values = layers.Concatenate()(raw) if len(raw) > 1 else raw[0]
        absent = ops.isnan(values)
        filled = ops.where(absent, float32([c.fill for c in spec.numeric]), values)
        shift, scale = (
            float32([c.shift for c in spec.numeric]),
            float32([c.scale for c in spec.numeric]),
        )
        blocks.append(layers.Normalization(mean=shift, variance=np.square(scale))(filled))
        shown = [i for i, column in enumerate(spec.numeric) if column.indicator]
        if shown:
            blocks.append(ops.take(ops.cast(absent, "float32"), np.array(shown), axis=1))
    for categorical in spec.categorical:
        inputs[categorical.name] = keras.Input((1,), dtype="string")
        blocks.append(_one_hot(categorical)(inputs[categorical.name]))
    return layers.Concatenate()(blocks) if len(blocks) > 1 else blocks[0]


def _one_hot(column: Categorical) -> layers.Layer:
    """Unknown is index 0, the empty text (missing) index 1, then the categories."""
    return layers.StringLookup(vocabulary=["", *column.categories], num_oov_indices=1, output_mode="one_hot")
