"""The fitted preprocessing: what is done to each column, as plain numbers and texts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from shoal.common.schema import InputSpec


@dataclass(frozen=True, slots=True)
class Numeric:
    """A numeric column becomes (x - shift) / scale, with `fill` where x is missing.

    Attributes:
        name: the column; fill: in the column's own unit.
        shift, scale: scale is never 0.
        indicator: whether an additional input is 1 where the value was missing.
    """

    name: str
    fill: float
    shift: float
    scale: float
    indicator: bool


@dataclass(frozen=True, slots=True)
class Categorical:
    """A categorical column becomes one-hot inputs: unknown, missing, then each kept category."""

    name: str
    categories: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.categories) + 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text becomes `length` token ids: 0 padding, 1 unknown, 2 + i the i-th of the vocabulary."""

    name: str
    vocabulary: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image is multiplied by `factor`."""

    name: str
    shape: tuple[int, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Sequence:
    """Each channel of a sequence becomes (x - mean) / std."""

    name: str
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PreprocessingSpec:
    """What is done to the columns; either the two table kinds, or one of the others.

    A table's vector has the scaled numbers, then their missing indicators, then the one-hot inputs.
    """

    numeric: tuple[Numeric, ...] = ()
    categorical: tuple[Categorical, ...] = ()
    tokens: Tokens | None = None
    image: Image | None = None
    sequence: Sequence | None = None

    @property
    def input_spec(self) -> InputSpec:
        """The encoded input."""
        if self.tokens is not None:
            return InputSpec("tokens", (self.tokens.length,), len(self.tokens.vocabulary) + 2)
        if self.image is not None:
            return InputSpec("image", self.image.shape)
        if self.sequence is not None:
            return InputSpec("sequence", self.sequence.shape)
        indicators = sum(column.indicator for column in self.numeric)
        width = len(self.numeric) + indicators + sum(column.width for column in self.categorical)
        return InputSpec("vector", (width,))

    def to_json(self) -> str:
        """Serialise to JSON; `from_json` restores exactly the same numbers."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PreprocessingSpec:
        """Read JSON that `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(
            numeric=tuple(Numeric(**column) for column in raw["numeric"]),
            categorical=tuple(
                Categorical(column["name"], tuple(column["categories"])) for column in raw["categorical"]
            ),
            tokens=_optional(Tokens, raw["tokens"]),
            image=_optional(Image, raw["image"]),
            sequence=_optional(Sequence, raw["sequence"]),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON text, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _optional(kind: Any, raw: dict[str, Any] | None) -> Any:
    if raw is None:
        return None
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
