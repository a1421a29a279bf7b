"""Numbers over sites: the mean, the worst, the worst tenth and the spread of a test metric."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from shoal.common.config import HIGHER_IS_BETTER, TASK_METRICS, TrainingConfig
from shoal.common.events import Model, SiteRow

MODELS: tuple[Model, ...] = ("local", "federated", "centralised")

# The choice where the configuration leaves it open: the first metric of any task, then all others.
_FIRSTS = [names[0] for names in TASK_METRICS.values()]
_USUAL = dict.fromkeys([*_FIRSTS, *(name for names in TASK_METRICS.values() for name in names)])


@dataclass(frozen=True, slots=True)
class OverSites:
    """One metric of one model over the sites where it is defined.

    Attributes:
        sites: number of these sites.
        mean: unweighted: each site counts once, however small.
        worst: the worst site's value; `worst_site` is its name.
        worst_tenth: mean over the worst tenth of the sites (at least one).
        std: standard deviation over sites (of the population, not of a sample).
        spread: largest minus smallest value.
    """

    sites: int
    mean: float
    worst: float
    worst_site: str
    worst_tenth: float
    std: float
    spread: float


def over_sites(rows: Sequence[SiteRow], model: Model, metric: str) -> OverSites | None:
    """Return the numbers over sites, or `None` if no site has this model and metric."""
    found = [
        (row.tests[model][metric].value, row.name)
        for row in rows
        if metric in row.tests.get(model, {}) and math.isfinite(row.tests[model][metric].value)
    ]
    if not found:
        return None
    found.sort(reverse=not higher_is_better(metric))  # the worst comes first
    values = [value for value, _ in found]
    tenth = values[: math.ceil(len(values) / 10)]
    return OverSites(
        sites=len(values),
        mean=fmean(values),
        worst=values[0],
        worst_site=found[0][1],
        worst_tenth=fmean(tenth),
        std=pstdev(values),
        spread=max(values) - min(values),
    )


def tested_metrics(rows: Iterable[SiteRow]) -> list[str]:
    """Return the names of the metrics that any site was tested with, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for tests in row.tests.values() for name in tests))


def models(rows: Iterable[SiteRow]) -> list[Model]:
    """Return the models that any site was tested with, in the order local, federated, centralised."""
    present = {model for row in rows for model in row.tests}
    return [model for model in MODELS if model in present]


def higher_is_better(metric: str) -> bool:
    """Whether larger values of the metric are better."""
    return HIGHER_IS_BETTER.get(metric, True)


def monitored_metric(training: TrainingConfig, names: Collection[str]) -> str | None:
    """Return the metric, out of `names`, that selected the round; `None` if there are none."""
    # "auto" is the first configured metric, as in common/metrics.py.
    for name in (training.monitor, *training.metrics[:1]):
        if name in names:
            return str(name)
    return next((name for name in _USUAL if name in names), next(iter(names), None))
