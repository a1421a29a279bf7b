"""A client's part of the sums: vectors of fixed length, under the disclosure rule or ready for noise.

`common/preprocessing/sums/plan.py` gives the layout, and how far one row or one client moves a vector.
Without noise, and where the noise protects whole clients, a vector holds only what the disclosure rule lets
a client reveal (`statistics.py`), so that it may also be added in the clear. Where the noise protects
single rows, counts are exact: the rule's thresholds would let one row move many numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.preprocessing.names import Held, marked
from shoal.clients.preprocessing.statistics import class_counts, disclosable_values
from shoal.common.preprocessing.sums.buckets import bucket_count
from shoal.common.preprocessing.sums.names import NameTable
from shoal.common.preprocessing.sums.plan import LARGEST_SIZE, MOMENT_UNIT, SumsPlan
from shoal.common.schema import Shard

Parts = dict[str, NDArray[np.float64]]
# Without noise the limits have no effect: values lie within the range that sites reported, or near it.
_FARTHEST: Final = 64.0


class Contribution:
    """A client's part of each pass, before noise."""

    def __init__(self, shard: Shard, plan: SumsPlan) -> None:
        self.shard, self.plan = shard, plan
        # under noise for rows nothing is withheld: the thresholds would let one row move many numbers
        self._min_count = 1 if plan.by_record else plan.config.min_count
        self._silent = shard.rows < self._min_count

    def numbers(self, clips: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the vector of the first pass.

        Args:
            clips: column → largest count that this client adds to a bucket, under noise for records.
        """
        return self.plan.numbers().joined({} if self._silent else self._tabled() | self._marked(clips))

    def moments(self, ranges: Mapping[str, tuple[float, float]]) -> NDArray[np.int64]:
        """Return the vector of the second pass: [n, Σ u, Σ u²] of each column and channel.

        Args:
            ranges: column or channel → low and high, mapped to u = -1 and 1; others give zeros.
        """
        parts: Parts = {}
        for name, (low, high) in ({} if self._silent else ranges).items():
            values, whole = self._values(name)
            u = (values - (low + high) / 2) / ((high - low) / 2)
            farthest = 1.0 if self.plan.protection.noisy else _FARTHEST
            # each value is rounded on its own, so that one row moves the sum by its own value only
            u = np.rint(np.clip(u, -farthest, farthest) * MOMENT_UNIT) / MOMENT_UNIT
            square = np.rint(u * u * MOMENT_UNIT) / MOMENT_UNIT
            parts[name] = np.array([u.size, u.sum(), square.sum()]) / (whole if self.plan.scaled else 1)
        return self.plan.moments().joined(parts)

    def names(
        self, heavy: Mapping[str, NDArray[np.bool_]], tables: Mapping[str, NameTable]
    ) -> NDArray[np.int64]:
        """Return the vector of the third pass: tables of the names whose buckets are all heavy, concatenated.

        Args:
            heavy: column → (hashes, buckets); tables: column → shape of its table.
        """
        filled = [np.zeros(0, np.int64)]
        for column, table in tables.items():
            disclosed = {} if self._silent else self._disclosable(column)
            kept = marked([name for name in disclosed if table.fits(name)], column, heavy[column])
            filled.append(table.filled({name: disclosed[name] for name in kept}))
        return np.concatenate(filled)

    def counts(self, names: Mapping[str, Sequence[str]], clips: Mapping[str, int]) -> NDArray[np.int64]:
        """Return the vector of the last pass, under noise only: this client's count of each name found.

        Args:
            names: column → names; clips: column → largest count that this client adds to a name.
        """
        sizes = {column: len(listed) for column, listed in names.items()}
        parts: Parts = {}
        for column, listed in ({} if self._silent else names).items():
            disclosed = self._disclosable(column)
            rows = np.array([disclosed.get(name, 0) for name in listed], np.float64)
            parts[column] = (
                self._clip_counts(rows, clips[column]) if self.plan.by_record else np.minimum(rows, 1)
            )
        return self.plan.counts(sizes).joined(parts)

    def _tabled(self) -> Parts:
        """Return all parts of the first pass except the buckets."""
        shard, rows = self.shard, self.shard.rows
        whole = rows if self.plan.scaled else 1
        classes = class_counts(shard.labels, self.plan.schema.num_classes, self._min_count)
        histograms = {name: self._histogram(name) for name in self.plan.schema.names("numeric")}
        parts: Parts = {
            "sites": np.ones(1),
            "sizes": np.eye(LARGEST_SIZE)[(rows - 1).bit_length()],
            "told": np.array([counts.any() for counts in histograms.values()], np.float64),
            "rows": np.array([rows / whole]),
            "classes": np.array(classes, np.float64) / whole,
        }
        for name, counts in histograms.items():
            parts[f"numeric {name}"] = np.concatenate([[rows - counts.sum()], counts]) / whole
        for channel, steps in self.plan.channels.items():
            parts[f"channel {channel}"] = self._histogram(channel) / (
                whole * steps if self.plan.scaled else 1
            )
        for name in self.plan.schema.names("image"):
            small = shard.columns[name].dtype == np.uint8
            parts["pixels"] = np.array([small, not small], np.float64)
        return parts

    def _histogram(self, name: str) -> NDArray[np.int64]:
        bins = self.plan.grid
        counts = bins.histogram(self._values(name)[0])
        # a channel has one value for each row and step
        least = self._min_count * self.plan.channels.get(name, 1)
        return counts if self.plan.by_record else bins.joined(counts, least)

    def _values(self, name: str) -> tuple[NDArray[np.float64], int]:
        """Return the disclosable values of a column or channel, and how many there could be at most."""
        if name in self.shard.columns:
            return np.asarray(
                disclosable_values(self.shard.columns[name], self._min_count), np.float64
            ), self.shard.rows
        column, _, channel = name.rpartition(":")
        values = self.shard.columns[column][:, :, int(channel)].astype(np.float64).ravel()
        return values[np.isfinite(values)], values.size

    @cached_property
    def _held(self) -> dict[str, Held]:
        kinds = {c.name: c.kind for c in self.plan.schema.columns if c.kind in ("categorical", "text")}
        tokens = self.plan.config.tokens if self.plan.by_record else None
        return {
            name: Held.of(self.shard.columns[name], words=kind == "text", tokens=tokens)
            for name, kind in kinds.items()
        }

    def _disclosable(self, column: str) -> dict[str, int]:
        """Return name → rows of the names that this client may disclose, each in at least min_count rows."""
        held, min_count = self._held[column], self.plan.config.min_count
        if self.plan.by_record:
            return {name: n for name, n in held.rows().items() if n >= min_count}
        disclosed = held.disclosable(min_count)
        if self.plan.scaled:  # limits how many names one client moves: its most frequent ones
            kept = sorted(disclosed, key=lambda name: (-disclosed[name], name))[: self.plan.reach[column]]
            disclosed = {name: disclosed[name] for name in kept}
        return disclosed

    def _marked(self, clips: Mapping[str, int]) -> Parts:
        parts: Parts = {}
        for column, most in self.plan.most_names.items():
            buckets, hashes, held = bucket_count(most), self.plan.hashes, self._held[column]
            if self.plan.by_record:
                counts = self._clip_counts(
                    held.bucket_rows(column, buckets, hashes).astype(np.float64), clips[column]
                )
            else:
                flags = Held.of(np.array(list(self._disclosable(column)), object), words=False)
                counts = np.minimum(flags.bucket_rows(column, buckets, hashes), 1).astype(np.float64)
            parts[f"buckets {column}"] = counts.ravel()
        return parts

    def _clip_counts(self, rows: NDArray[np.float64], clip: int) -> NDArray[np.float64]:
        """Clip counts at both ends: below min_count to 0, and to at most `clip`.

        One row more or less moves a count by at most 1, which would not hold if small counts became 0 and
        others stayed unchanged.
        """
        return np.clip(rows - (self.plan.config.min_count - 1), 0, clip)
