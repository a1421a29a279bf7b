"""The layout of the vectors, and the sensitivity of each part to one row or one client.

Passes, each a vector of integers whose length both sides know:

1. `numbers`: how many sites, of what size to a power of two, and rows; rows of each class; a histogram of
   each numeric column and channel, and its missing values; the pixel type; buckets of names.
2. `moments`: of each numeric column and channel within the range that pass 1 found.
3. `names`, without noise: tables of the names whose buckets are common to sites (`names`).
4. `counts`, with noise only: rows of each name that pass 3 found.

Sensitivity (the L2 norm of the change of a block when one unit is added or removed), before noise:

- record: a row is in one class; has one value in a numeric column, which is in one bin or missing: 1. It has
  `steps` values in a channel: all in one bin at worst, so `steps`. It has at most `reach` names in a column
  (1 category; the first `preprocessing.tokens` words of a text, which are all that a model gets), so marks
  at most that many buckets in each row, each by 1: sqrt(reach). A client's count of a bucket or name is cut
  at both ends, which brings no two counts further apart.
- client, local: a histogram is divided by the client's rows (or values), so its entries are at least 0 and
  add up to at most 1, and so does the sum of their squares. A client marks at most `reach` buckets in each
  row.
- moments [n, Σ u, Σ u²] of values scaled to -1 ≤ u ≤ 1: each number moves by at most 1 for a row (`steps`
  for a row of a sequence, 1 for a client, which divides by its rows): sqrt(3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shoal.common.config import PreprocessingConfig, Scenario
from shoal.common.preprocessing.sums.buckets import HASHES, bucket_count
from shoal.common.preprocessing.sums.grid import Grid
from shoal.common.preprocessing.sums.layout import Block, Layout
from shoal.common.preprocessing.sums.names import NameTable
from shoal.common.preprocessing.sums.noise import StatisticsProtection, protection
from shoal.common.privacy.mechanisms import MECHANISMS
from shoal.common.schema import Schema

EXACT: Final = Grid(0.01)
COARSE: Final = Grid(0.1)  # with noise: wide bins have more rows for the same noise
# Steps in 1. Sums of counts stay below 2^31, the ring of secure aggregation, up to 33 million rows.
ROW_UNIT: Final = 1 << 6  # of counts of rows with noise
SHARE_UNIT: Final = 1 << 12  # of shares of a client's rows
MOMENT_UNIT: Final = 1 << 24  # of moments, which are sent as several numbers each where the ring is small
LARGEST_SIZE: Final = 40  # sites have fewer than 2 ** LARGEST_SIZE rows
CLIENT_NAMES: Final = 1000  # names in a column that one client may add to, where a client is protected
_NAME_BYTES: Final = {"categorical": 128, "text": 32}
_FEW_SHARE: Final = 0.1  # of the squared budget of the first pass: for rows, classes and pixels
_CLIP: Final = (
    2.5  # a site's count of a bucket or name is clipped at this many standard deviations of the noise
)


@dataclass(frozen=True, slots=True)
class SumsPlan:
    """What server and clients both know about the sums before the first request.

    Attributes:
        schema, config: of the run; protection: the noise.
    """

    schema: Schema
    config: PreprocessingConfig
    protection: StatisticsProtection

    @classmethod
    def of(cls, schema: Schema, scenario: Scenario) -> SumsPlan:
        """Return the plan of a scenario.

        Raises:
            ConfigError: as `protection` does.
        """
        return cls(schema, scenario.preprocessing, protection(schema, scenario))

    @property
    def by_record(self) -> bool:
        """Whether the noise protects single rows."""
        return MECHANISMS[self.protection.unit].per_row

    @property
    def scaled(self) -> bool:
        """Whether each client divides its histograms by its rows: if clients are protected."""
        return self.protection.noisy and not self.by_record

    @property
    def grid(self) -> Grid:
        """The grid of histograms."""
        return COARSE if self.protection.noisy else EXACT

    @property
    def most_names(self) -> dict[str, int]:
        """Column → most names that are kept of it, of the columns that have names."""
        most = {name: self.config.max_categories for name in self.schema.names("categorical")}
        return most | {name: max(1, self.config.vocabulary - 2) for name in self.schema.names("text")}

    @property
    def reach(self) -> dict[str, int]:
        """Column → most names that one unit of privacy adds to."""
        if self.by_record:
            texts = dict.fromkeys(self.schema.names("text"), self.config.tokens)
            return dict.fromkeys(self.schema.names("categorical"), 1) | texts
        return {column: min(CLIENT_NAMES, most) for column, most in self.most_names.items()}

    @property
    def channels(self) -> dict[str, int]:
        """Steps of each channel of the sequence columns, by "column:channel"."""
        return {
            f"{column.name}:{channel}": column.shape[0]
            for column in self.schema.columns
            if column.kind == "sequence"
            for channel in range(column.shape[1])
        }

    @property
    def _count_unit(self) -> int:
        return SHARE_UNIT if self.scaled else ROW_UNIT

    @property
    def hashes(self) -> int:
        """Number of rows of buckets: half as many with noise, because each needs a share of the budget."""
        return HASHES // 2 if self.protection.noisy else HASHES

    def numbers(self) -> Layout:
        """Return the layout of the first pass."""
        few = [Block("rows", 1, 1.0)]
        if self.schema.num_classes:
            few.append(Block("classes", self.schema.num_classes, 1.0))
        if self.schema.names("image"):
            few.append(Block("pixels", 2, 0.0 if self.by_record else 1.0))
        histograms = [Block(f"numeric {n}", 1 + self.grid.bins, 1.0) for n in self.schema.names("numeric")]
        for channel, steps in self.channels.items():
            histograms.append(Block(f"channel {channel}", self.grid.bins, steps if self.by_record else 1.0))
        buckets = [
            Block(f"buckets {c}", self.hashes * bucket_count(most), math.sqrt(self.hashes * self.reach[c]))
            for c, most in self.most_names.items()
        ]
        if not self.protection.noisy:
            told = Block("told", len(self.schema.names("numeric")))
            sites = (Block("sites", 1), Block("sizes", LARGEST_SIZE), told)
            return Layout((*sites, *few, *histograms, *buckets), 1)
        # totals of many rows tolerate more noise than histograms and buckets, which count fewer rows
        rest = (1 - _FEW_SHARE) / (bool(histograms) + bool(buckets)) if histograms or buckets else 0.0
        blocks = (*_shared(few, 1 - rest * (bool(histograms) + bool(buckets))), *_shared(histograms, rest))
        return Layout((*blocks, *_shared(buckets, rest)), self._count_unit, self.protection.multiplier)

    def moments(self) -> Layout:
        """Return the layout of the pass of moments."""
        blocks = [Block(name, 3, math.sqrt(3)) for name in self.schema.names("numeric")]
        for channel, steps in self.channels.items():
            blocks.append(Block(channel, 3, math.sqrt(3) * (steps if self.by_record else 1)))
        return Layout(_shared(blocks, 1.0), MOMENT_UNIT, self.protection.multiplier)

    def counts(self, names: Mapping[str, int]) -> Layout:
        """Return the layout of the pass of counts; names: column → how many were found in it."""
        blocks = [Block(column, names[column], math.sqrt(most)) for column, most in self.reach.items()]
        return Layout(_shared(blocks, 1.0), self._count_unit, self.protection.multiplier)

    def clip(self, layout: Layout, block: str, spread: float) -> int:
        """Return the limit of one site's count, so that no single site makes a bucket or name common.

        Args:
            layout, block: that the count is in.
            spread: of the sum's noise, in standard deviations of the block's.
        """
        return math.ceil(_CLIP * layout.stddev(block) * spread) if self.by_record else 1

    def table(self, column: str, cells: int, attempt: int) -> NameTable:
        """Return the shape of a table of a column's names."""
        kind = "text" if column in self.schema.names("text") else "categorical"
        return NameTable(column, cells, _NAME_BYTES[kind], attempt)


def _shared(blocks: Iterable[Block], total: float) -> tuple[Block, ...]:
    """Divide a share evenly among the blocks that need noise."""
    listed = list(blocks)
    moved = sum(block.sensitivity > 0 for block in listed)
    return tuple(
        Block(b.name, b.length, b.sensitivity, total / moved if b.sensitivity > 0 else 0.0) for b in listed
    )
