"""The answer in words: did federated learning help each site, compared with local and with pooled training?

The federated model of each site is compared with the other model on the same test rows. A difference below
`TIE` counts as none. A difference is clear if the two 95 % intervals do not overlap. This is stricter than a
test of the difference: a clear difference can be trusted, and the others may still be real.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from shoal.common.events import Interval, Model, SiteRow
from shoal.simulations.results.sites import higher_is_better, over_sites
from shoal.simulations.results.text import interval, metric_name, number

TIE = 0.0005  # half of the last digit shown
NEAR = 0.01  # of a metric between 0 and 1
NEAR_SHARE = 0.05  # of a metric without an upper bound
BOUNDED = ("auc", "f1", "accuracy")

Tone = Literal["good", "mixed", "bad", "open"]


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
class Verdict:
    """The top of the report."""

    headline: str
    tone: Tone
    sentences: tuple[str, ...]


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


def _apart(one: Interval, two: Interval) -> bool | None:
    if any(math.isnan(bound) for bound in (one.low, one.high, two.low, two.high)):
        return None
    return one.low > two.high or two.low > one.high


def judge(rows: Sequence[SiteRow], metric: str | None) -> Verdict:
    """Return the verdict on the final test of all sites.

    Args:
        rows: one per site; empty if the test did not take place.
        metric: the metric to judge by; `None` if there is none.
    """
    if not rows or metric is None:
        return Verdict(
            "No answer yet: the final test at the sites did not take place",
            "open",
            ("Below is what the run recorded until then; metrics are from validation rows.",),
        )
    alone = differences(rows, "local", metric)
    if not alone:
        return Verdict(
            "Whether federated learning helped was not measured",
            "open",
            (*_federated_only(rows, metric), *_pooled(rows, metric), *_worst(rows, metric)),
        )
    headline, tone = _headline(alone)
    sentences = (
        *_alone(alone, metric),
        *_clear(alone),
        *_pooled(rows, metric),
        *_worst(rows, metric),
        *_left_out(rows, alone, metric),
    )
    return Verdict(headline, tone, sentences)


def _headline(alone: Sequence[Difference]) -> tuple[str, Tone]:
    total = len(alone)
    better, worse = (sum(d.gain > TIE for d in alone), sum(d.gain < -TIE for d in alone))
    mean = fmean(d.gain for d in alone)
    if better > total / 2 and mean > 0:
        where = f"at {better} of {total} sites" if better < total else f"at all {total} sites"
        helped = f"Federated learning helped {where if total > 1 else 'the one site'}"
        measured = [d for d in alone if d.clear is not None]
        if measured and not any(d.clear and d.gain > 0 for d in measured):
            return f"{helped}, by margins that may be chance", "mixed"
        return helped, "good"
    if not better and not worse:
        return "Federated learning made no difference at any site", "mixed"
    if worse > total / 2 or (mean < -TIE and worse >= better):
        return (
            f"Federated learning did not help: training alone was better at {worse} of {total} sites",
            "bad",
        )
    return (
        f"Mixed results: federated learning helped at {better} of {total} sites and hurt at {worse}",
        "mixed",
    )


def _alone(alone: Sequence[Difference], metric: str) -> list[str]:
    total = len(alone)
    better = [d for d in alone if d.gain > TIE]
    worse = sorted((d for d in alone if d.gain < -TIE), key=lambda d: d.gain)
    ours, theirs = fmean(d.federated.value for d in alone), fmean(d.other.value for d in alone)
    found = [
        f"Federated beat local-only training at {len(better)} of {_sites(total)} "
        f"(mean {metric_name(metric)} {number(ours)} against {number(theirs)})."
    ]
    if worse:
        most = worse[0]
        pair = f"{number(most.other.value)} alone against {number(most.federated.value)}"
        if len(worse) == 1:
            found.append(f"At {most.site.name} training alone was better ({pair}).")
        else:
            found.append(
                f"At {len(worse)} sites training alone was better, most at {most.site.name} ({pair})."
            )
    return found


def _clear(alone: Sequence[Difference]) -> list[str]:
    measured = [d for d in alone if d.clear is not None]
    if not measured:
        return ["No intervals were computed, so the role of chance is unknown."]
    helped = [d.site.name for d in measured if d.clear and d.gain > 0]
    hurt = [d.site.name for d in measured if d.clear and d.gain < 0]
    if not helped and not hurt:
        return ["No difference exceeds the 95 % intervals, so each single one could be chance."]
    parts = []
    if helped:
        parts.append(f"{len(helped)} in favour of federated learning ({_names(helped)})")
    if hurt:
        parts.append(f"{len(hurt)} against it ({_names(hurt)})")
    clear, rest = len(helped) + len(hurt), len(measured) - len(helped) - len(hurt)
    of = f"Of {len(measured)} differences, {clear}" if len(measured) > 1 else "The difference"
    tail = "; the others may be chance" if rest > 1 else "; the other may be chance" if rest else ""
    return [f"{of} exceed{'s' if clear == 1 else ''} the 95 % intervals: {' and '.join(parts)}{tail}."]


def _pooled(rows: Sequence[SiteRow], metric: str) -> list[str]:
    pooled = differences(rows, "centralised", metric)
    if not pooled:
        return []
    ours, theirs = fmean(d.federated.value for d in pooled), fmean(d.other.value for d in pooled)
    name = metric_name(metric)
    if metric in BOUNDED:
        near, unit = [d for d in pooled if d.gain >= -NEAR], f"{NEAR:g}"
    else:
        near = [d for d in pooled if d.gain >= -NEAR_SHARE * abs(d.other.value)]
        unit = f"{NEAR_SHARE:.0%}".replace("%", " %")
    return [
        f"One model trained on the pooled data reaches mean {name} {number(theirs)} against "
        f"{number(ours)} federated: the federated model is within {unit} of it, or better, "
        f"at {len(near)} of {_sites(len(pooled))}."
    ]


def _worst(rows: Sequence[SiteRow], metric: str) -> list[str]:
    across = over_sites(rows, "federated", metric)
    if across is None or across.sites < 2:
        return []
    row = next(r for r in rows if r.name == across.worst_site and _value(r, metric) == across.worst)
    local = row.tests.get("local", {}).get(metric)
    alone = f"; alone it reaches {number(local.value)}" if local and math.isfinite(local.value) else ""
    value = interval(row.tests["federated"][metric])
    worst = f"The worst site is {row.name} with {metric_name(metric)} {value} on {row.test_rows:,} test rows"
    return [f"{worst}{alone}."]


def _federated_only(rows: Sequence[SiteRow], metric: str) -> list[str]:
    across = over_sites(rows, "federated", metric)
    found = ["Only the federated model was trained; use --compare to train local-only models too."]
    if across:
        mean = f"mean {metric_name(metric)} {number(across.mean)} over {_sites(across.sites)}"
        found.append(f"The federated model reaches {mean}.")
    return found


def _left_out(rows: Sequence[SiteRow], alone: Sequence[Difference], metric: str) -> list[str]:
    judged = {d.site.client for d in alone}
    names = [row.name for row in rows if row.client not in judged]
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    return [
        f"{_sites(len(names))} ({_names(names)}) {verb} left out because {metric_name(metric)} is undefined "
        "there: the test rows have a single class, or are too few to report."
    ]


def _value(row: SiteRow, metric: str) -> float:
    found = row.tests.get("federated", {}).get(metric)
    return math.nan if found is None else found.value


def _sites(count: int) -> str:
    return f"{count} site{'s' if count != 1 else ''}"


def _names(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
