"""Converts `Statistics` to Flower records, and back.

A vocabulary of 50,000 tokens is one blob of UTF-8 and three arrays, not 50,000 records:

===================  ============  ==============================================================
record               kind          holds
===================  ============  ==============================================================
statistics.columns   ConfigRecord  format version, column names by kind, image pixel types
statistics.numbers   ArrayRecord   row, class and missing counts; moments; sketch bins and counts;
                                   rows and clients of each category and token
statistics.words     ConfigRecord  categories and tokens, joined, and their lengths in bytes
===================  ============  ==============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, Final, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from shoal.common.errors import DisclosureError
from shoal.common.preprocessing.aggregates import CategoricalStatistics, Counts, Moments, NumericStatistics
from shoal.common.preprocessing.sketch import Sketch
from shoal.common.preprocessing.statistics import Statistics

T = TypeVar("T")

COLUMNS: Final = "statistics.columns"
NUMBERS: Final = "statistics.numbers"
WORDS: Final = "statistics.words"
_PREFIX: Final = "statistics"
_VERSION: Final = 1
_NAME_KEYS: Final = ("numeric", "categorical", "tokens", "images", "sequences")
# array name → (dtype, trailing shape)
_ARRAYS: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "totals": ("int64", ()),  # sites, rows
    "classes": ("int64", ()),
    "numeric-counts": ("int64", (4,)),  # values, missing, sites, sketch bins
    "numeric-moments": ("float64", (4,)),  # mean, m2, low, high
    "sketch": ("int64", (2,)),  # bin code, count
    "sequence-channels": ("int64", ()),
    "sequence-counts": ("int64", ()),
    "sequence-moments": ("float64", (4,)),
    "category-missing": ("int64", ()),
    "word-lists": ("int64", ()),  # values of each categorical column, then of each text column
    "words": ("int64", (3,)),  # rows, sites, length in bytes
}


def pack(statistics: Statistics) -> RecordDict:
    """Pack statistics into Flower records, whose names start with "statistics"; the inverse of `unpack`."""
    columns: dict[str, Any] = {"version": _VERSION}
    columns |= {kind: list(getattr(statistics, kind)) for kind in _NAME_KEYS}
    columns["uint8"] = [bool(flag) for flag in statistics.images.values()]
    tables = [c.counts for c in statistics.categorical.values()] + list(statistics.tokens.values())
    encoded = [[_encode(value) for value in table.values] for table in tables]
    arrays = _value_arrays(statistics) | {
        "totals": [statistics.sites, statistics.rows],
        "classes": statistics.classes,
        "category-missing": [c.missing for c in statistics.categorical.values()],
        "word-lists": [len(table.values) for table in tables],
        "words": [
            row
            for table, words in zip(tables, encoded, strict=True)
            for row in zip(table.counts, table.sites, map(len, words), strict=True)
        ],
    }
    shaped = {
        key: np.asarray(arrays[key], dtype).reshape(-1, *tail) for key, (dtype, tail) in _ARRAYS.items()
    }
    return RecordDict(
        {
            COLUMNS: ConfigRecord(columns),
            NUMBERS: ArrayRecord({key: Array(value) for key, value in shaped.items()}),
            WORDS: ConfigRecord({"utf-8": b"".join(chain.from_iterable(encoded))}),
        }
    )


def _value_arrays(statistics: Statistics) -> dict[str, Sequence[Any]]:
    numeric = list(statistics.numeric.values())
    channels = [moments for parts in statistics.sequences.values() for moments in parts]
    return {
        "numeric-counts": [(c.moments.count, c.missing, c.sites, len(c.sketch.bins)) for c in numeric],
        "numeric-moments": [_numbers(c.moments) for c in numeric],
        "sketch": [pair for c in numeric for pair in zip(c.sketch.bins, c.sketch.counts, strict=True)],
        "sequence-channels": [len(parts) for parts in statistics.sequences.values()],
        "sequence-counts": [moments.count for moments in channels],
        "sequence-moments": [_numbers(moments) for moments in channels],
    }


def _numbers(moments: Moments) -> tuple[float, float, float, float]:
    return moments.mean, moments.m2, moments.low, moments.high


def _encode(word: str) -> bytes:
    # a lone surrogate in badly decoded data must not make a site fail
    return word.encode("utf-8", "surrogatepass")


def unpack(content: RecordDict) -> Statistics:
    """Unpack the output of `pack`; records with other names are ignored.

    Raises:
        DisclosureError: a statistics record is missing, malformed, or contains anything else.
    """
    names = {name for name in content if name.startswith(_PREFIX)}
    if names != {COLUMNS, NUMBERS, WORDS}:
        raise _malformed(f"expected the records {COLUMNS}, {NUMBERS} and {WORDS}")
    columns, numbers, words = content[COLUMNS], content[NUMBERS], content[WORDS]
    if not isinstance(columns, ConfigRecord) or not isinstance(words, ConfigRecord):
        raise _malformed("a record is of the wrong kind")
    if not isinstance(numbers, ArrayRecord) or set(numbers) != set(_ARRAYS):
        raise _malformed(f"{NUMBERS} does not contain the expected arrays")
    if set(columns) != {"version", "uint8", *_NAME_KEYS} or set(words) != {"utf-8"}:
        raise _malformed(f"{COLUMNS} or {WORDS} does not contain the expected keys")
    if columns["version"] != _VERSION:
        raise _malformed(f"format {columns['version']!r}, expected {_VERSION}")
    arrays = {key: _array(numbers[key], key) for key in _ARRAYS}
    blob = words["utf-8"]
    if not isinstance(blob, bytes):
        raise _malformed(f"{WORDS} does not contain bytes")
    try:
        return _rebuild(columns, arrays, blob)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        # the error itself may quote a value
        raise _malformed(f"its parts do not fit together ({type(error).__name__})") from None


def _malformed(why: str) -> DisclosureError:
    return DisclosureError(
        f"statistics from a client are malformed: {why}",
        hint="client and server must run the same version of shoal",
    )


def _array(array: Array, key: str) -> NDArray[Any]:
    dtype, tail = _ARRAYS[key]
    value = array.numpy()
    if value.dtype != np.dtype(dtype) or value.ndim != 1 + len(tail) or value.shape[1:] != tail:
        raise _malformed(f'array "{key}" has dtype {value.dtype} and shape {value.shape}')
    return value


def _rebuild(columns: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], blob: bytes) -> Statistics:
    sites, rows = arrays["totals"].tolist()
    categorical, tokens = columns["categorical"], columns["tokens"]
    tables = _tables(arrays, blob)
    if len(tables) != len(categorical) + len(tokens):
        raise ValueError("word lists")
    missing = arrays["category-missing"].tolist()
    held = zip(tables[: len(categorical)], missing, strict=True)
    channels = _cut(
        _moments(arrays["sequence-counts"], arrays["sequence-moments"]), arrays["sequence-channels"]
    )
    return Statistics(
        sites=sites,
        rows=rows,
        classes=tuple(arrays["classes"].tolist()),
        numeric=_named(columns["numeric"], _numeric(arrays)),
        categorical=_named(categorical, [CategoricalStatistics(*pair) for pair in held]),
        tokens=_named(tokens, tables[len(categorical) :]),
        images=_named(columns["images"], list(columns["uint8"])),
        sequences=_named(columns["sequences"], [tuple(part) for part in channels]),
    )


def _named(names: Sequence[str], values: Sequence[T]) -> dict[str, T]:
    named = dict(zip(names, values, strict=True))
    if len(named) != len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError("names")
    return named


def _cut(items: Sequence[T], lengths: NDArray[Any]) -> list[Sequence[T]]:
    """Cut a sequence into pieces of the given lengths, which must add up to its length."""
    ends = list(accumulate(lengths.tolist(), initial=0))
    if ends[-1] != len(items) or (lengths < 0).any():
        raise ValueError("lengths")
    return [items[start:end] for start, end in pairwise(ends)]


def _moments(counts: NDArray[Any], numbers: NDArray[Any]) -> list[Moments]:
    pairs = zip(counts.tolist(), numbers.tolist(), strict=True)
    # a Moments without values is always the default one, so that equality does not compare NaN with NaN
    return [Moments(count, *four) if count else Moments() for count, four in pairs]


def _numeric(arrays: Mapping[str, NDArray[Any]]) -> list[NumericStatistics]:
    counts = arrays["numeric-counts"]
    sketches = _cut(arrays["sketch"].tolist(), counts[:, 3])
    moments = _moments(counts[:, 0], arrays["numeric-moments"])
    make: Callable[[Sequence[Any]], Sketch] = lambda pairs: Sketch(  # noqa: E731
        tuple(code for code, _ in pairs), tuple(count for _, count in pairs)
    )
    return [
        NumericStatistics(moment, missing, make(pairs), sites)
        for moment, (_, missing, sites, _), pairs in zip(moments, counts.tolist(), sketches, strict=True)
    ]


def _tables(arrays: Mapping[str, NDArray[Any]], blob: bytes) -> list[Counts]:
    rows, sites, lengths = arrays["words"].T
    pieces = _cut(blob, lengths)
    words = [bytes(piece).decode("utf-8", "surrogatepass") for piece in pieces]
    entries = list(zip(words, rows.tolist(), sites.tolist(), strict=True))
    return [
        Counts(*(tuple(part) for part in zip(*table, strict=True))) if table else Counts()
        for table in _cut(entries, arrays["word-lists"])
    ]
