"""The server's requests for the passes, as values of a Flower `ConfigRecord`, and how clients read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.errors import DisclosureError
from shoal.common.messages.requests import PASSES
from shoal.common.preprocessing.sums.buckets import MOST_HEAVY, bucket_count
from shoal.common.preprocessing.sums.names import NameTable
from shoal.common.preprocessing.sums.plan import SumsPlan

PASS: Final = "pass"
Values = dict[str, Any]


def number_of_pass(values: Mapping[str, Any]) -> int:
    """Return the number of the requested pass, from 1; each pass draws separate noise.

    Raises:
        DisclosureError: there is no such pass.
    """
    name = values.get(PASS)
    if name not in PASSES:
        raise DisclosureError(f'statistics are not summed in a pass "{str(name)[:40]}"')
    return PASSES.index(name) + 1


@dataclass(frozen=True, slots=True)
class Questions:
    """Packs and reads the requests of one federation.

    Attributes:
        plan: known to both sides.
    """

    plan: SumsPlan

    def numbers(self, clips: Mapping[str, int]) -> Values:
        """Request the first pass; clips: column → maximum count of a client for a bucket."""
        return self._values("numbers") | {"clips": [clips[column] for column in self._columns()]}

    def moments(self, ranges: Mapping[str, tuple[float, float]]) -> Values:
        """Request moments within ranges; an empty range marks a column that is not requested."""
        listed = [ranges.get(name, (0.0, 0.0)) for name in self._ranged()]
        return self._values("moments") | {
            "low": [low for low, _ in listed],
            "high": [high for _, high in listed],
        }

    def names(self, heavy: Mapping[str, NDArray[np.bool_]], tables: Mapping[str, NameTable]) -> Values:
        """Request tables of names.

        Args:
            heavy: column → (hashes, buckets); tables: column → shape, for the requested columns.
        """
        flags = b"".join(np.packbits(heavy[column]).tobytes() for column in self._columns())
        shapes = [tables.get(column) for column in self._columns()]
        return self._values("names") | {
            "heavy": flags,
            "cells": [shape.cells if shape else 0 for shape in shapes],
            "attempts": [shape.attempt if shape else 0 for shape in shapes],
        }

    def counts(self, names: Mapping[str, Sequence[str]], clips: Mapping[str, int]) -> Values:
        """Request counts of names; clips: column → maximum count of a client for a name."""
        listed = json.dumps([list(names[column]) for column in self._columns()])
        clipped = [clips[column] for column in self._columns()]
        return self._values("counts") | {"names": listed, "clips": clipped}

    def read_clips(self, values: Mapping[str, Any]) -> dict[str, int]:
        """Return column → clip."""
        return dict(zip(self._columns(), map(int, values["clips"]), strict=True))

    def read_ranges(self, values: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
        """Return column or channel → range, for the requested ones."""
        pairs = zip(self._ranged(), values["low"], values["high"], strict=True)
        return {name: (float(low), float(high)) for name, low, high in pairs if low < high}

    def read_heavy(self, values: Mapping[str, Any]) -> dict[str, NDArray[np.bool_]]:
        """Return column → heavy buckets, (hashes, buckets).

        Raises:
            DisclosureError: so many are heavy that rare names would be reported by chance.
        """
        lines = self.plan.hashes
        flags, start, found = np.frombuffer(values["heavy"], np.uint8), 0, {}
        for column, most in self.plan.most_names.items():
            buckets = bucket_count(most)
            end = start + lines * buckets // 8
            found[column] = np.unpackbits(flags[start:end]).reshape(lines, buckets).astype(bool)
            start = end
            if found[column].mean(axis=1).max() > MOST_HEAVY:
                raise DisclosureError(
                    f'the server claims that more than half of the buckets of "{column}" are common to '
                    "several sites",
                    hint="rare names could be reported by chance; exclude the column, or raise "
                    "preprocessing.max_categories or vocabulary, which makes more buckets",
                )
        return found

    def read_tables(self, values: Mapping[str, Any]) -> dict[str, NameTable]:
        """Return column → shape of its table, for the requested columns."""
        shapes = zip(self._columns(), values["cells"], values["attempts"], strict=True)
        return {
            column: self.plan.table(column, int(cells), int(attempt))
            for column, cells, attempt in shapes
            if cells > 0
        }

    def read_names(self, values: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return column → names to count."""
        return dict(zip(self._columns(), json.loads(values["names"]), strict=True))

    def _values(self, name: str) -> Values:
        return {PASS: name}

    def _columns(self) -> list[str]:
        return list(self.plan.most_names)

    def _ranged(self) -> list[str]:
        return [*self.plan.schema.names("numeric"), *self.plan.channels]
