"""How well scores separate two groups of rows: ROC, AUC, and true positive rates at low false positive rates.

Membership inference is judged by its true-positive rate at very small false-positive rates, not on average
(Carlini, Chien, Nasr, Song, Terzis, Tramèr: Membership Inference Attacks From First Principles, IEEE S&P
2022, section III).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shoal.common.events import Interval
from shoal.common.metrics import bootstrap

Scores = NDArray[np.float64]  # (rows,), higher says "member"

RATES: Final = (0.001, 0.01)  # false positive rates at which hits are reported
_POINTS: Final = 200  # of a stored curve
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Curve:
    """A ROC curve: one point for each threshold between "nobody" (0, 0) and "everybody" (1, 1)."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hits:
    """Members found at a bounded false positive rate.

    Attributes:
        fpr: the bound; needs: number of non-members needed to measure such a rate.
        tpr: share of members found, with an interval that contains the true one with 95 % (`_limits`);
            `None` where there are fewer non-members.
    """

    fpr: float
    needs: int
    tpr: Interval | None


@dataclass(frozen=True, slots=True)
class Separation:
    """The performance of an attack on some rows.

    Attributes:
        members, others: numbers of rows.
        auc: with its 95 % bootstrap interval.
        hits: at each of `RATES`; finest: the hits at the smallest rate that `others` rows can measure.
    """

    members: int
    others: int
    auc: Interval
    hits: Sequence[Hits]
    finest: Hits


def curve(members: Scores, others: Scores) -> Curve:
    """Return the ROC curve of "a row is a member if its score is at least the threshold"."""
    scores = np.concatenate([members, others])
    order = np.argsort(-scores, kind="stable")
    is_member = np.concatenate([np.ones(len(members)), np.zeros(len(others))])[order]
    last = np.append(
        np.flatnonzero(np.diff(scores[order])), len(scores) - 1
    )  # the last index of each run of equal scores
    found, alarms = np.cumsum(is_member)[last], np.cumsum(1 - is_member)[last]
    return Curve(np.append(0.0, alarms / len(others)), np.append(0.0, found / len(members)))


def hits_at(fpr: float, members: Scores, others: Scores) -> Hits:
    """Return the largest true positive rate at a false positive rate of at most `fpr`.

    It takes 1 / fpr non-members to see a single false positive at that rate: with fewer, the number would
    only say that the top score happened to be a member's.
    """
    needs = math.ceil(1 / fpr - 1e-9)
    if len(others) < needs or not len(members):
        return Hits(fpr, needs, None)
    drawn = curve(members, others)
    share = float(drawn.tpr[drawn.fpr <= fpr + 1e-12].max())
    return Hits(fpr, needs, Interval(share, *_limits(fpr, members, others)))


def _limits(fpr: float, members: Scores, others: Scores) -> tuple[float, float]:
    """Return 95 % limits of the true positive rate at a false positive rate.

    The threshold is uncertain too: the false positive rate at the j-th highest of n scores has a beta
    distribution, Beta(j, n - j + 1), whatever the scores' own. So the lower limit is taken at a threshold
    whose rate is surely below `fpr` (0 if even the highest score's may be above), and the upper one at a
    threshold whose rate is surely above. Each of the two thresholds, and of the two exact limits there, errs
    with at most 1.25 %, all together with at most 5 % (Bonferroni).
    """
    n, ranked, tail = len(others), np.sort(others)[::-1], (1 - _CONFIDENCE) / 4
    below = stats.beta.cdf(fpr, np.arange(1, n + 1), n - np.arange(n))  # P(rate at the j-th score < fpr)
    sure, beyond = np.flatnonzero(below >= 1 - tail), np.flatnonzero(below <= tail)
    low, high = 0.0, 1.0
    if len(sure):
        found = int((members > ranked[sure[-1]]).sum())
        low = clopper_pearson(found, len(members), 1 - 2 * tail)[0]
    if len(beyond):
        found = int((members >= ranked[beyond[0]]).sum())
        high = clopper_pearson(found, len(members), 1 - 2 * tail)[1]
    return low, high


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a share (Clopper, Pearson: Biometrika 26, 1934)."""
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def separation(members: Scores, others: Scores, rng: np.random.Generator, resamples: int) -> Separation:
    """Return AUC and hits of an attack.

    Args:
        members, others: scores of rows that were, and were not, trained on; at least one each.
        rng: draws the rows of the bootstrap; resamples: 0 gives no interval of the AUC.
    """
    labels = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    scores = np.concatenate([members, others])[:, None]
    auc = bootstrap("binary", labels, scores, ["auc"], rng, resamples)["auc"]
    return Separation(
        len(members),
        len(others),
        auc,
        [hits_at(fpr, members, others) for fpr in RATES],
        hits_at(1 / len(others), members, others),
    )


def thinned(drawn: Curve) -> Mapping[str, Any]:
    """Return a curve of few points, spaced for logarithmic axes, for a file; it contains no row's score."""
    if len(drawn.fpr) <= _POINTS:
        kept = np.arange(len(drawn.fpr))
    else:
        first = max(1 / len(drawn.fpr), drawn.fpr[drawn.fpr > 0].min())
        wanted = np.append(0.0, np.geomspace(first, 1.0, _POINTS - 1))
        kept = np.unique(np.searchsorted(drawn.fpr, wanted, side="right") - 1)
    return {"fpr": drawn.fpr[kept].tolist(), "tpr": drawn.tpr[kept].tolist()}
