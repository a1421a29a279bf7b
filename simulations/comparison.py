"""Compares two models over sites: the difference at each site, and one paired test over all of them.

Two 95 % intervals that do not overlap are a stricter sign than a test of the difference: of two independent
estimates without any difference, about 0.6 % look like that (|z| > 2 x 1.96 / sqrt(2) = 2.77). The sites
count as a sample in the paired test: Wilcoxon's signed-rank test, as recommended for two models on several
data sets by Demšar (Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from shoal.common.events import Interval, Model, SiteRow
from shoal.simulations.results.sites import higher_is_better

TIE: Final = 0.0005  # half of the last digit shown
LEVEL: Final = 0.05  # of the paired test, two-sided
FEWEST_SITES: Final = 6  # of fewer, even the most extreme result has p > LEVEL: 2 / 2**5 = 0.0625
_CHANCE: Final = 0.01  # of the sites may have intervals apart without any difference; see above


@dataclass(frozen=True, slots=True)
class Difference:
    """One site's federated value against another model's.

    Attributes:
        gain: how much better the federated model is, in the metric's unit; negative if worse.
        clear: whether the 95 % intervals do not overlap; `None` without intervals.
    """

    site: SiteRow
    federated: Interval
    other: Interval
    gain: float
    clear: bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The federated model against another one over the sites where both have a value (at least one).

    Attributes:
        differences: one per site.
        p_value: of the paired test; `None` with fewer than `FEWEST_SITES` sites that differ at all.
    """

    differences: Sequence[Difference]
    p_value: float | None

    @property
    def mean_gain(self) -> float:
        """Mean gain over sites, each counted once."""
        return fmean(d.gain for d in self.differences)

    @property
    def better(self) -> list[Difference]:
        """Sites with a gain that is more than a tie."""
        return [d for d in self.differences if d.gain > TIE]

    @property
    def worse(self) -> list[Difference]:
        """Sites with a loss that is more than a tie, the largest first."""
        return sorted((d for d in self.differences if d.gain < -TIE), key=lambda d: d.gain)

    @property
    def measured(self) -> list[Difference]:
        """Sites where both models have an interval."""
        return [d for d in self.differences if d.clear is not None]

    @property
    def clearly_better(self) -> list[Difference]:
        """Sites with a gain whose intervals are apart."""
        return [d for d in self.better if d.clear]

    @property
    def clearly_worse(self) -> list[Difference]:
        """Sites with a loss whose intervals are apart."""
        return [d for d in self.worse if d.clear]

    @property
    def helps(self) -> bool:
        """Whether there is a gain beyond chance, at single sites or over all."""
        return self._beyond_chance(self.clearly_better, sign=1)

    @property
    def hurts(self) -> bool:
        """Whether there is a loss beyond chance, at single sites or over all."""
        return self._beyond_chance(self.clearly_worse, sign=-1)

    def _beyond_chance(self, clear: Sequence[Difference], sign: int) -> bool:
        over_all = self.p_value is not None and self.p_value < LEVEL and sign * self.mean_gain > TIE
        return over_all or len(clear) > _CHANCE * len(self.differences)


def compare(rows: Sequence[SiteRow], other: Model, metric: str) -> Comparison | None:
    """Compare the federated model with another; `None` if they share no site with a finite value."""
    found = differences(rows, other, metric)
    return Comparison(found, paired_test([d.gain for d in found])) if found else None


def differences(rows: Sequence[SiteRow], other: Model, metric: str) -> list[Difference]:
    """Return the sites where both models have a finite value of the metric."""
    found = []
    for row in rows:
        ours, theirs = (row.tests.get(model, {}).get(metric) for model in ("federated", other))
        if ours is None or theirs is None or not math.isfinite(ours.value - theirs.value):
            continue
        gain = ours.value - theirs.value
        found.append(
            Difference(row, ours, theirs, gain if higher_is_better(metric) else -gain, _apart(ours, theirs))
        )
    return found


def paired_test(gains: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; gains of 0 are left out.

    Returns:
        `None` if fewer than `FEWEST_SITES` gains differ from 0: no result could be significant then.
    """
    from scipy.stats import wilcoxon  # takes a second to import

    if sum(gain != 0 for gain in gains) < FEWEST_SITES:
        return None
    return float(wilcoxon(gains).pvalue)


def _apart(one: Interval, two: Interval) -> bool | None:
    if any(math.isnan(bound) for bound in (one.low, one.high, two.low, two.high)):
        return None
    return one.low > two.high or two.low > one.high
