"""Statistics of all clients together from sums over clients, with noise where it is asked for.

`SummedStatistics` asks for the passes of `common/preprocessing/sums/plan.py` one after the other and
returns the same total that `Statistics.merge` gives where clients tell theirs one by one, so that the
preprocessing is fitted in one way. Whatever is done to a noisy sum here costs no further privacy
(post-processing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.errors import DataError, DisclosureError
from shoal.common.preprocessing import Statistics
from shoal.common.preprocessing.aggregates import (
    CategoricalStatistics,
    Counts,
    Moments,
    NumericStatistics,
    round_down,
    round_up,
)
from shoal.common.preprocessing.sketch import Sketch
from shoal.common.preprocessing.sums.layout import Layout
from shoal.common.preprocessing.sums.noise import client_share
from shoal.common.preprocessing.sums.plan import MOMENT_UNIT, SumsPlan
from shoal.common.preprocessing.sums.questions import Questions, Values
from shoal.common.privacy.noise import Randomness
from shoal.common.schema import Schema
from shoal.server.preprocessing import summed_names
from shoal.server.preprocessing.sums import SumOver

Parts = Mapping[str, NDArray[np.float64]]
_NEIGHBOURS: Final = (1, 2, 4, 8)
_TAIL: Final = 0.01  # of the values on either side, outside the range of moments under noise
_FALSE_BIN: Final = 1e-3  # chance that noise alone makes any empty bin of a column count as filled
# Where clients are protected, masses add up to 1 a client: counted in millionths, they are whole numbers.
_MILLION: Final = 1_000_000
# Under noise a variance may come out at 0 or below; no column is taken to be narrower, in ranges squared.
_LEAST_VARIANCE: Final = 1 / 1024


class SummedStatistics:
    """Requests the sums of one federation.

    Attributes:
        largest: rows that no site has more of, once `total` was asked for: up to twice the largest site's,
            or under noise, which tells no site's size, `privacy.full_weight_rows`.

    Args:
        sum_over: sends the requests; asked: number of clients.
        schema, scenario: of the run.
        source: of the server's noise, where the server adds it.
        say: called with progress messages.

    Raises:
        ConfigError: as `protection` does.
    """

    def __init__(
        self,
        sum_over: SumOver,
        asked: int,
        schema: Schema,
        scenario: Scenario,
        source: Randomness,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.sum_over, self.source, self.say = sum_over, source, say
        self.scenario, self.largest = scenario, 0
        self.plan = SumsPlan.of(schema, scenario)
        self.protection, self.config = self.plan.protection, scenario.preprocessing
        self.questions = Questions(self.plan)
        self.scale = _MILLION if self.plan.scaled else 1
        # of the sum's noise, in standard deviations of a block's: where clients add noise, it adds up
        each = client_share(asked, scenario) * math.sqrt(asked)
        self.spread = each if self.protection.at_client else 1.0

    def total(self) -> Statistics:
        """Request everything and return the statistics of all clients together.

        Raises:
            DisclosureError: fewer than min_sites clients are in the sum.
            DataError: clients hold different kinds of pixels, or the names cannot be read.
        """
        layout, schema = self.plan.numbers(), self.plan.schema
        clips = {c: self.plan.clip(layout, f"buckets {c}", self.spread) for c in self.plan.reach}
        parts, clients = self._noisy_sum(self.questions.numbers(clips), layout)
        sites = clients if self.protection.noisy else int(parts["sites"][0])
        if sites < self.config.min_sites:
            raise DisclosureError(
                f"{sites} clients could report statistics, but preprocessing.min_sites = "
                f"{self.config.min_sites} are required",
                hint="fewer sites would reveal one of them; lower min_sites only if that is allowed",
            )
        self.largest = _largest(parts) or self.scenario.privacy.full_weight_rows
        moments = self._moments(parts, layout)
        names = self._names(parts, layout) if self.plan.reach else {}
        found = Statistics(
            sites=sites,
            rows=max(1, self._whole(parts["rows"][0])),
            classes=tuple(self._whole(n) for n in parts.get("classes", ())),
            numeric=self._numeric(parts, layout, moments),
            categorical={c: CategoricalStatistics(names[c]) for c in schema.names("categorical")},
            tokens={c: names[c] for c in schema.names("text")},
            images={c: self._is_uint8(parts["pixels"]) for c in schema.names("image")},
            sequences={
                column.name: tuple(
                    moments.get(f"{column.name}:{channel}", Moments()) for channel in range(column.shape[1])
                )
                for column in schema.columns
                if column.kind == "sequence"
            },
        )
        return self._require(found)

    def _require(self, total: Statistics) -> Statistics:
        """Return the total, unless the noise leaves nothing of a column that nothing can replace."""
        hidden = [name for name, words in total.tokens.items() if not words.values]
        hidden += [name for name, parts in total.sequences.items() if not all(m.count for m in parts)]
        if not any(c.sites for c in total.numeric.values()) and not any(
            c.counts.values for c in total.categorical.values()
        ):
            hidden += [*total.numeric, *total.categorical]
        if hidden and self.protection.noisy:
            raise DataError(
                "the noise that privacy.statistics_epsilon requires hides all values of "
                f"{hidden[0]}"
                f"{f' and {len(hidden) - 1} more columns' if len(hidden) > 1 else ''}",
                hint="raise privacy.statistics_epsilon; more rows and sites help, and so does "
                "secure.aggregation, with which sites share one noise instead of each adding its own",
            )
        return total

    def _noisy_sum(self, question: Values, layout: Layout) -> tuple[dict[str, NDArray[np.float64]], int]:
        """Request one pass: a single Gaussian mechanism, or without noise."""
        summed = self.sum_over(question, layout.size)
        by_server = self.protection.noisy and not self.protection.at_client
        vector = layout.noised(summed.vector, self.source) if by_server else summed.vector
        return layout.cut(vector), summed.clients

    def _moments(self, parts: Parts, layout: Layout) -> dict[str, Moments]:
        """Request the moments of the columns and channels whose range is known."""
        blocks = {name: f"numeric {name}" for name in self.plan.schema.names("numeric")}
        blocks |= {channel: f"channel {channel}" for channel in self.plan.channels}
        ranges = {
            name: span
            for name, block in blocks.items()
            if (span := self._range(self._filled(parts[block], layout, block))) is not None
        }
        if not ranges:
            return {}
        asked = self.plan.moments()
        found, _ = self._noisy_sum(self.questions.moments(ranges), asked)
        return {
            name: moment
            for name, (low, high) in ranges.items()
            if (moment := self._moment(found[name], low, high)).count
        }

    def _filled(self, block: NDArray[np.float64], layout: Layout, name: str) -> NDArray[np.float64]:
        """Return the histogram without what is likely to be noise alone: nothing outside the filled bins.

        Filled are neighbours (1, 2, 4 or 8) that together hold more than noise alone would give any such
        neighbours in the whole histogram, but for one time in 1,000. Between the first and the last of them,
        counts below 0 are 0.
        """
        counts = block[-self.plan.grid.bins :]
        stddev = layout.stddev(name) * self.spread
        z = NormalDist().inv_cdf(1 - _FALSE_BIN / (len(_NEIGHBOURS) * counts.size)) if stddev else 0.0
        filled = np.zeros(counts.size, bool)
        for width in _NEIGHBOURS:
            together = np.convolve(counts, np.ones(width), "valid") > z * stddev * math.sqrt(width)
            for first in np.flatnonzero(together).tolist():
                filled[first : first + width] = True
            if not stddev:
                break  # without noise a bin is filled or not
        where = np.flatnonzero(filled)
        kept = np.zeros_like(counts)
        if where.size:
            inside = slice(where[0], where[-1] + 1)
            kept[inside] = np.maximum(counts[inside], 0)
        return kept

    def _range(self, counts: NDArray[np.float64]) -> tuple[float, float] | None:
        """Return the range of the filled bins; under noise without the outermost 1 % on either side.

        The noise of moments grows with the range, and a far bin is as likely to be noise as a few rows.
        """
        filled, edges = np.flatnonzero(counts), self.plan.grid.edges()
        if not filled.size:
            return None
        first, last = int(filled[0]), int(filled[-1])
        if self.protection.noisy:
            share = np.cumsum(counts) / counts.sum()
            first, last = (int(np.searchsorted(share, q)) for q in (_TAIL, 1 - _TAIL))
        return float(edges[first]), float(edges[last + 1])

    def _moment(self, sums: NDArray[np.float64], low: float, high: float) -> Moments:
        n, first, second = sums.tolist()
        if n <= 0:
            return Moments()
        center, half = (low + high) / 2, (high - low) / 2
        mean = min(max(first / n, -1.0), 1.0)
        variance = second / n - mean**2
        if self.protection.noisy:
            variance = max(variance, _LEAST_VARIANCE)
        elif (
            variance <= 1 / MOMENT_UNIT
        ):  # squares are rounded, so of equal values the variance is not quite 0
            variance = 0.0
        ends = round_down(low), round_up(high)
        count = max(1, self._whole(n))
        return Moments(count, center + half * mean, variance * half**2 * count, *ends)

    def _numeric(
        self, parts: Parts, layout: Layout, moments: Mapping[str, Moments]
    ) -> dict[str, NumericStatistics]:
        columns = self.plan.schema.names("numeric")
        told = parts.get("told", np.full(len(columns), self.config.min_sites))  # not reported under noise
        found = {}
        for name, sites in zip(columns, told.tolist(), strict=True):
            block = f"numeric {name}"
            if name not in moments:
                found[name] = NumericStatistics()
                continue
            missing = float(parts[block][0])
            noise = NormalDist().inv_cdf(1 - _FALSE_BIN) * layout.stddev(block) * self.spread
            sketch = _sketch(self._filled(parts[block], layout, block) * self.scale, self.plan.grid.places())
            found[name] = NumericStatistics(
                moments[name], self._whole(missing) if missing > noise else 0, sketch, int(sites)
            )
        return found

    def _names(self, parts: Parts, layout: Layout) -> dict[str, Counts]:
        """Request the names whose buckets are heavy, and under noise their counts."""
        counts = {c: parts[f"buckets {c}"].reshape(self.plan.hashes, -1) for c in self.plan.reach}
        heavy = summed_names.heavy_buckets(counts, layout, self.plan, self.spread)
        rare = summed_names.chance_of_rare(heavy)
        self.say(f"names: a name of a single site is revealed with a probability of at most {rare:.1g}")
        found = summed_names.read_names(heavy, self.questions, self.sum_over)
        if not self.protection.noisy:
            return summed_names.told_counts(found)
        listed = {column: sorted(names) for column, names in found.items()}
        asked = self.plan.counts({column: len(names) for column, names in listed.items()})
        if not asked.size:
            return dict.fromkeys(listed, Counts())
        clips = {c: self.plan.clip(asked, c, self.spread) for c in self.plan.reach}
        noisy, _ = self._noisy_sum(self.questions.counts(listed, clips), asked)
        return summed_names.noisy_counts(noisy, listed, asked, self.plan, self.spread)

    def _is_uint8(self, pixels: NDArray[np.float64]) -> bool:
        small, large = pixels.tolist()
        if not self.protection.noisy and small and large:
            raise DataError("clients reported different columns", hint="all sites need the same pixel types")
        return bool(small > large)

    def _whole(self, mass: Any) -> int:
        return max(0, round(float(mass) * self.scale))


def _largest(parts: Parts) -> int:
    """Return a power of two that no site's rows exceed; 0 where sites do not report them."""
    sizes = np.flatnonzero(parts.get("sizes", np.zeros(1)))
    return 1 << int(sizes[-1]) if sizes.size else 0


def _sketch(counts: NDArray[np.float64], places: NDArray[np.float64]) -> Sketch:
    """Return a sketch of values at places, each as often as it was counted."""
    whole = np.rint(counts).astype(np.int64)
    filled = np.flatnonzero(whole)
    return Sketch.placed(places[filled], whole[filled].tolist())
