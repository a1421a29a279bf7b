"""The fitted preprocessing as Keras layers in front of a trained model; imports Keras.

It uses only Keras' own layers and operations, so that the saved file loads without shoal.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from shoal.common.preprocessing.encoder import float32
from shoal.common.preprocessing.spec import Categorical, PreprocessingSpec


def with_preprocessing(spec: PreprocessingSpec, trained: keras.Model) -> keras.Model:
    """Return a model of raw columns: the preprocessing as Keras layers, then `trained`.

    Its inputs have the names of the columns, (rows, 1): numbers with NaN where missing, texts with ""
    where missing. A text column expects words cut by jieba and joined by spaces; images and sequences
    are used as they are.
    """
    inputs: dict[str, Any] = {}
    if spec.tokens is not None:
        inputs[spec.tokens.name] = raw = keras.Input((1,), dtype="string", name=spec.tokens.name)
        encoded = layers.TextVectorization(
            standardize=None,
            split="whitespace",
            output_sequence_length=spec.tokens.length,
            vocabulary=list(spec.tokens.vocabulary),
        )(raw)
    elif spec.image is not None:
        inputs[spec.image.name] = raw = keras.Input(spec.image.shape, name=spec.image.name)
        encoded = layers.Rescaling(spec.image.factor)(raw)
    elif spec.sequence is not None:
        inputs[spec.sequence.name] = raw = keras.Input(spec.sequence.shape, name=spec.sequence.name)
        variance = np.square(float32(spec.sequence.std))
        encoded = layers.Normalization(mean=float32(spec.sequence.mean), variance=variance)(raw)
    else:
        encoded = _table(spec, inputs)
    return keras.Model(inputs, trained(encoded), name="raw_rows")


def _table(spec: PreprocessingSpec, inputs: dict[str, Any]) -> Any:
    blocks = []
    if spec.numeric:
        for column in spec.numeric:
            inputs[column.name] = keras.Input((1,), name=column.name)
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
        inputs[categorical.name] = keras.Input((1,), dtype="string", name=categorical.name)
        blocks.append(_one_hot(categorical)(inputs[categorical.name]))
    return layers.Concatenate()(blocks) if len(blocks) > 1 else blocks[0]


def _one_hot(column: Categorical) -> layers.Layer:
    """Unknown is index 0, the empty text (missing) index 1, then the categories."""
    return layers.StringLookup(vocabulary=["", *column.categories], num_oov_indices=1, output_mode="one_hot")
