"""The model card of a run: what the model is, of what, and how good.

The headings are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. What a run cannot
know (who is responsible, what the model is meant for) stays open, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shoal.simulations.handover.markdown import table
from shoal.simulations.report import sentences as told
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.verdict import judge
from shoal.simulations.results.sites import models, over_sites, tested_metrics
from shoal.simulations.results.text import MODEL_NAMES, NONE, count, interval, metric_name, number

TO_FILL_IN: Final = "**TO BE FILLED IN BY THE OPERATOR:**"
_MOST_SITES: Final = 200  # rows of a table; sites.parquet has all


def model_card(facts: Facts, preprocessing: str, digest: str, intended_use: str | None) -> str:
    """Return MODEL_CARD.md.

    Args:
        facts: of the run; preprocessing: the content of preprocessing.json.
        digest: SHA-256 of model.keras; intended_use: what the operator says, or `None`.
    """
    sections: dict[str, Sequence[str]] = {
        "Model details": _details(facts, digest),
        "Intended use": [intended_use.strip() if intended_use else _OPEN],
        "Factors": [_FACTORS],
        "Metrics": [_metrics(facts)],
        "Evaluation data": [told.testing(facts)],
        "Training data": [told.data_of_run(facts), "", told.where_rows_are(facts), "", _SHEET],
        "Preprocessing": _preprocessing(facts, json.loads(preprocessing)),
        "Quantitative analyses": _quantitative(facts),
        "Ethical considerations": [told.privacy(facts), "", told.secure_aggregation(facts), "", _PRIVACY],
        "Caveats and recommendations": _caveats(facts),
    }
    lines = [f"# Model card: {facts.scenario.name}"]
    for heading, content in sections.items():
        lines += ["", f"## {heading}", "", *content]
    return "\n".join(lines) + "\n"


_OPEN: Final = (
    f"{TO_FILL_IN} primary uses, primary users, and uses that are out of scope. Until then this model has no "
    "stated use."
)
_FACTORS: Final = (
    "Results are given by site, the only group that the run knows. "
    f"{TO_FILL_IN} further groups (age, sex, equipment, …) for which the model should be evaluated."
)
_SHEET: Final = "DATA_SHEET.md has what each site told of its rows, in aggregate form."
_PRIVACY: Final = "PRIVACY.md has what left each site and what protected it. Rows are not in this bundle."


def _details(facts: Facts, digest: str) -> list[str]:
    finished = str(facts.summary.get("finished", ""))[:10] or told.NOT_RECORDED
    return [
        f"- {told.purpose_of_run(facts)}",
        f"- Kind: Keras model {facts.scenario.model.name}; it takes raw columns, and schema.json names them.",
        f"- File: model.keras, SHA-256 {digest}.",
        f"- Finished: {finished}. {told.environment(facts)}",
        f"- {TO_FILL_IN} developers, licence, contact.",
    ]


def _metrics(facts: Facts) -> str:
    names = ", ".join(metric_name(name) for name in tested_metrics(facts.sites)) or told.NOT_RECORDED
    resamples = facts.scenario.output.bootstrap
    how = (
        f"Brackets hold 95 % bootstrap intervals over a site's test rows ({count(resamples)} resamples)."
        if resamples
        else "No intervals were computed."
    )
    return f"{names}. {how} {told.chosen_round(facts)} Means count each site once."


def _quantitative(facts: Facts) -> list[str]:
    """Return a table over all sites, and for each metric one by site."""
    present = models(facts.sites)
    if not present:
        return [f"{told.NOT_RECORDED}: the final test did not take place."]
    lines = ["Over all sites:", ""]
    rows = []
    for metric in tested_metrics(facts.sites):
        for model in present:
            across = over_sites(facts.sites, model, metric)
            if across:
                values = (across.mean, across.worst, across.std)
                label = f"{metric_name(metric)}, {MODEL_NAMES[model]}"
                rows.append([label, str(across.sites), *map(number, values), across.worst_site])
    lines += table(("metric, model", "sites", "mean", "worst", "std", "worst site"), rows)
    ordered = sorted(facts.sites, key=lambda row: (-row.train_rows, row.client))[:_MOST_SITES]
    for metric in tested_metrics(facts.sites):
        columns = ("site", "test rows", *(MODEL_NAMES[model] for model in present))
        lines += ["", f"{metric_name(metric)} by site:", ""]
        lines += table(
            columns,
            (
                [
                    row.name,
                    count(row.test_rows) if row.test_rows else NONE,
                    *(interval(row.tests.get(m, {}).get(metric)) for m in present),
                ]
                for row in ordered
            ),
        )
    if len(facts.sites) > _MOST_SITES:
        lines += ["", f"sites.parquet has all {count(len(facts.sites))} sites."]
    return lines


def _preprocessing(facts: Facts, spec: Mapping[str, Any]) -> list[str]:
    """Say what is done to the inputs, inside the model file."""
    config = facts.scenario.preprocessing
    lines = ["Fitted over the sites from aggregates; it is part of model.keras.", ""]
    if spec["numeric"]:
        indicators = sum(column["indicator"] for column in spec["numeric"])
        lines.append(
            f"- {count(len(spec['numeric']))} numeric columns: missing values filled ({config.impute}), "
            f"scaled ({config.scale}), {count(indicators)} with an input that says that a value was missing."
        )
    if spec["categorical"]:
        kept = sum(len(column["categories"]) for column in spec["categorical"])
        lines.append(
            f"- {count(len(spec['categorical']))} categorical columns: one-hot, {count(kept)} categories "
            "kept; others, and missing ones, have inputs of their own."
        )
    if spec["tokens"]:
        vocabulary, length = spec["tokens"]["vocabulary"], spec["tokens"]["length"]
        lines.append(f"- Text: {count(len(vocabulary))} words known, rows cut or padded to {length} of them.")
    if spec["image"]:
        lines.append(
            f"- Images of shape {tuple(spec['image']['shape'])}, times {spec['image']['factor']:.4g}."
        )
    if spec["sequence"]:
        lines.append(f"- Sequences of shape {tuple(spec['sequence']['shape'])}, each channel standardised.")
    return [*lines, "", told.disclosure_rule(facts)]


def _caveats(facts: Facts) -> list[str]:
    verdict = judge(facts.sites, facts.metric)
    said = [f"{verdict.headline}.", *verdict.sentences, told.failures(facts)]
    return [*(f"- {sentence}" for sentence in said), f"- {TO_FILL_IN} what users have to watch for."]
