"""The answer in words: did federated learning help each site, compared with local and with pooled training?

It concludes only from what exceeds chance (`simulations/comparison.py`), and only if training had converged
(`simulations/convergence.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from shoal.common.config import HIGHER_IS_BETTER
from shoal.common.events import RoundRow, SiteRow
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.simulations.comparison import FEWEST_SITES, LEVEL, TIE, Comparison, compare, differences
from shoal.simulations.convergence import BOUNDED, Unconverged, unconverged
from shoal.simulations.results.sites import monitored_metric, over_sites, tested_metrics
from shoal.simulations.results.text import interval, metric_name, number, signed

if TYPE_CHECKING:
    from shoal.common.config import Scenario
    from shoal.simulations.results.folder import Status

NEAR = 0.01  # of a metric between 0 and 1
NEAR_SHARE = 0.05  # of a metric without an upper bound
MORE_ROUNDS = 3  # times as many are proposed for training that has not converged

Tone = Literal["good", "mixed", "bad", "open"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The top of the report."""

    headline: str
    tone: Tone
    sentences: tuple[str, ...]


def verdict_of(
    scenario: Scenario, status: Status, rounds: Sequence[RoundRow], sites: Sequence[SiteRow]
) -> Verdict:
    """Return the verdict on a run from what its folder holds."""
    # Of a metric that a strategy of the user's own adds, nobody knows which direction is better.
    known = {name: None for row in rounds for name in row.metrics if name in HIGHER_IS_BETTER}
    validated = monitored_metric(scenario.training, known)
    # Early stopping has its own rule for convergence.
    early = None if status == "stopped early" else unconverged(rounds, validated)
    return judge(sites, monitored_metric(scenario.training, tested_metrics(sites)), early, scenario)


def judge(
    rows: Sequence[SiteRow],
    metric: str | None,
    early: Unconverged | None = None,
    scenario: Scenario | None = None,
) -> Verdict:
    """Return the verdict on the final test of all sites.

    Args:
        rows: one per site; empty if the test did not take place.
        metric: the metric to judge by; `None` if there is none.
        early: what shows that training had not converged; scenario: whose training that was.
    """
    if not rows or metric is None:
        return Verdict(
            "No answer yet: the final test at the sites did not take place",
            "open",
            ("Below is what the run recorded until then; metrics are from validation rows.",),
        )
    trend = () if early is None else (_trend(early), _advice(early, scenario))
    alone = compare(rows, "local", metric)
    if alone is None:
        headline = "Whether federated learning helped was not measured"
        measured: tuple[str, ...] = tuple(_federated_only(rows, metric))
    else:
        measured = (*_alone(alone, metric), *_clear(alone), *_paired(alone))
        headline, tone = _headline(alone)
    if alone is not None and early is not None:
        headline = f"No conclusion yet: training had not converged after {_rounds(early.rounds)}"
    left_out = () if alone is None else _left_out(rows, alone, metric)
    return Verdict(
        headline,
        "open" if alone is None or early is not None else tone,
        (*trend, *measured, *_pooled(rows, metric), *_worst(rows, metric), *left_out),
    )


def _headline(alone: Comparison) -> tuple[str, Tone]:
    """Conclude from differences beyond chance only, so that similar means never get opposite tones."""
    total, better, worse = len(alone.differences), len(alone.better), len(alone.worse)
    for_it, against = len(alone.clearly_better), len(alone.clearly_worse)
    if not better and not worse:
        return "Federated learning made no difference at any site", "mixed"
    helps, hurts = alone.helps, alone.hurts
    if helps and not hurts and alone.mean_gain > TIE:
        return f"Federated learning helped{_where(for_it, total)}", "good"
    if hurts and not helps and alone.mean_gain < -TIE:
        return (
            f"Federated learning did not help: training alone was better{_where(against, total)}",
            "bad",
        )
    if helps or hurts:
        return (
            f"Mixed results: federated learning clearly helped at {for_it} of {_sites(total)} and clearly "
            f"hurt at {against}",
            "mixed",
        )
    if not alone.measured and alone.p_value is None:
        where = "" if total == 1 else f" at {better} of {total} sites"
        did = f"better{where}" if better else "worse"
        return f"Federated learning did {did}, but whether by chance was not measured", "mixed"
    return "No clear difference between federated learning and training alone", "mixed"


def _where(clear: int, total: int) -> str:
    if total == 1:
        return " at the one site"
    if clear == total:
        return f" at all {total} sites"
    return (
        f", clearly at {clear} of {total} sites"
        if clear
        else f" on average over {total} sites, clearly at none"
    )


def _trend(early: Unconverged) -> str:
    name = "the training loss" if early.measured == "loss" else f"validation {metric_name(early.measured)}"
    at_the_end = early.best_round == early.rounds
    best = f"the best round{' is the last' if at_the_end else f', {early.best_round}, is among the last'}"
    if early.change is None:
        return f"After {_rounds(early.rounds)} it cannot be told whether training had converged: {best}."
    return (
        f"{name[:1].upper()}{name[1:]} still changed by {signed(early.change)} over the last "
        f"{_rounds(early.window)}, and {best}."
    )


def _advice(early: Unconverged, scenario: Scenario | None) -> str:
    longer = f"Train longer, e.g. with --set training.rounds={MORE_ROUNDS * early.rounds}"
    if scenario is not None and mechanism_of(scenario.privacy).guarantees:
        return f"{longer}, at a higher epsilon or with more noise; the numbers below may change."
    if scenario is not None and not scenario.training.early_stopping.patience:
        longer += " --set training.early_stopping.patience=10, which stops a run that no longer improves"
    return f"{longer}; or raise training.learning_rate. The numbers below may change."


def _alone(alone: Comparison, metric: str) -> list[str]:
    total = len(alone.differences)
    better, worse = alone.better, alone.worse
    ours = fmean(d.federated.value for d in alone.differences)
    theirs = fmean(d.other.value for d in alone.differences)
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


def _clear(alone: Comparison) -> list[str]:
    if not alone.measured:
        return ["No intervals were computed, so the role of chance at a single site is unknown."]
    helped, hurt = ([d.site.name for d in found] for found in (alone.clearly_better, alone.clearly_worse))
    if not helped and not hurt:
        return ["No difference exceeds the 95 % intervals, so each single one could be chance."]
    parts = []
    if helped:
        parts.append(f"{len(helped)} in favour of federated learning ({_names(helped)})")
    if hurt:
        parts.append(f"{len(hurt)} against it ({_names(hurt)})")
    clear, measured = len(helped) + len(hurt), len(alone.measured)
    rest = measured - clear
    of = f"Of {measured} differences, {clear}" if measured > 1 else "The difference"
    tail = "; the others may be chance" if rest > 1 else "; the other may be chance" if rest else ""
    return [f"{of} exceed{'s' if clear == 1 else ''} the 95 % intervals: {' and '.join(parts)}{tail}."]


def _paired(alone: Comparison) -> list[str]:
    total = len(alone.differences)
    if alone.p_value is None:
        few = 1 < total < FEWEST_SITES and not alone.clearly_better and not alone.clearly_worse
        least = f"Over fewer than {FEWEST_SITES} sites, no paired test can find a difference."
        return [least] if few else []
    found = "a difference" if alone.p_value < LEVEL else "no difference"
    p = "p < 0.001" if alone.p_value < 0.001 else f"p = {alone.p_value:.2g}"
    return [f"Over all {total} sites, a paired test (Wilcoxon's signed-rank test) finds {found}: {p}."]


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


def _left_out(rows: Sequence[SiteRow], alone: Comparison, metric: str) -> list[str]:
    judged = {d.site.client for d in alone.differences}
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


def _rounds(count: int) -> str:
    return f"{count} round{'s' if count != 1 else ''}"


def _sites(count: int) -> str:
    return f"{count} site{'s' if count != 1 else ''}"


def _names(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
