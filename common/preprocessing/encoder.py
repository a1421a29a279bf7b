"""Applies a fitted preprocessing in numpy, for training; `layers.py` does the same in Keras, for export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.preprocessing.segment import segment
from shoal.common.preprocessing.spec import Categorical, PreprocessingSpec, Tokens

Columns = Mapping[str, NDArray[Any]]
UNKNOWN, MISSING = 0, 1  # positions in a one-hot code
PADDING_ID, UNKNOWN_ID, FIRST_ID = 0, 1, 2  # token ids


def float32(values: Sequence[float]) -> NDArray[np.float32]:
    """Return numbers as float32, the dtype of encoded rows and of Keras' layers."""
    return np.asarray(values, np.float32)


class Encoder:
    """Encodes raw columns as the array that the model is trained on."""

    def __init__(self, spec: PreprocessingSpec) -> None:
        self.spec = spec
        self._codes = {
            column.name: {value: i + 2 for i, value in enumerate(column.categories)}
            for column in spec.categorical
        }
        words = spec.tokens.vocabulary if spec.tokens else ()
        self._ids = {word: i + FIRST_ID for i, word in enumerate(words)}

    def encode(self, columns: Columns) -> NDArray[Any]:
        """Encode rows.

        Args:
            columns: as in `common.schema.Shard`; columns that are not in the specification are ignored.

        Returns:
            An array (rows, *input_spec.shape) of type input_spec.dtype.
        """
        spec = self.spec
        if spec.tokens is not None:
            return self._encode_texts(columns[spec.tokens.name], spec.tokens)
        if spec.image is not None:
            return columns[spec.image.name].astype(np.float32) * np.float32(spec.image.factor)
        if spec.sequence is not None:
            mean, std = float32(spec.sequence.mean), float32(spec.sequence.std)
            return np.asarray((columns[spec.sequence.name].astype(np.float32) - mean) / std)
        return self._encode_table(columns)

    def _encode_table(self, columns: Columns) -> NDArray[np.float32]:
        first = next(iter(columns.values()))
        blocks: list[NDArray[np.float32]] = [np.empty((len(first), 0), np.float32)]
        numeric = self.spec.numeric
        if numeric:
            values = np.stack([columns[c.name] for c in numeric], axis=1).astype(np.float32)
            absent = np.isnan(values)
            filled = np.where(absent, float32([c.fill for c in numeric]), values)
            shift, scale = float32([c.shift for c in numeric]), float32([c.scale for c in numeric])
            blocks.append((filled - shift) / scale)
            blocks.append(absent[:, [c.indicator for c in numeric]].astype(np.float32))
        blocks += [self._one_hot(columns[column.name], column) for column in self.spec.categorical]
        return np.concatenate(blocks, axis=1)

    def _one_hot(self, values: NDArray[Any], column: Categorical) -> NDArray[np.float32]:
        codes = self._codes[column.name]
        found = [codes.get(v, UNKNOWN) if v else MISSING for v in values.tolist()]
        return np.eye(column.width, dtype=np.float32)[found]

    def _encode_texts(self, texts: NDArray[Any], tokens: Tokens) -> NDArray[np.int32]:
        ids = np.full((len(texts), tokens.length), PADDING_ID, np.int32)
        for row, text in enumerate(texts.tolist()):
            words = segment(text)[: tokens.length]
            ids[row, : len(words)] = [self._ids.get(word, UNKNOWN_ID) for word in words]
        return ids
