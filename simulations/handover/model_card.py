"""The model card of a run: details, data, results and limits of the model.

The headings are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. Facts that a run
cannot know (who is responsible, what the model is for) are marked as open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shoal.simulations.report import sentences
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.markdown import escaped, table
from shoal.simulations.results.sites import models, over_sites, tested_metrics
from shoal.simulations.results.text import MODEL_NAMES, NONE, count, interval, metric_name, number

TO_FILL_IN: Final = "**TO BE FILLED IN BY THE OPERATOR:**"
_MOST_SITES: Final = 200  # rows of a table; sites.parquet has all


def model_card(facts: Facts, preprocessing: str, digest: str, intended_use: str | None) -> str:
    """Return MODEL_CARD.md.

    Args:
        facts: of the run; preprocessing: the content of preprocessing.json.
        digest: SHA-256 of model.keras; intended_use: the operator's text, or `None`.
    """
    sections: dict[str, Sequence[str]] = {
        "Model details": _details(facts, digest),
        "Intended use": [intended_use.strip() if intended_use else _OPEN],
        "Factors": [_FACTORS],
        "Metrics": [_metrics(facts)],
        "Evaluation data": [sentences.testing(facts)],
        "Training data": [sentences.data_of_run(facts), "", sentences.where_rows_are(facts), "", _SHEET],
        "Preprocessing": _preprocessing(facts, json.loads(preprocessing)),
        "Quantitative analyses": _quantitative(facts),
        "Ethical considerations": [
            sentences.privacy(facts),
            "",
            sentences.secure_aggregation(facts),
            "",
            _PRIVACY,
        ],
        "Caveats and recommendations": _caveats(facts),
    }
    lines = [f"# Model card: {facts.scenario.name}"]
    for heading, content in sections.items():
        own = heading == "Intended use"  # Markdown of the operator's own
        lines += ["", f"## {heading}", "", *(content if own else map(escaped, content))]
    return "\n".join(lines) + "\n"


_OPEN: Final = (
    f"{TO_FILL_IN} primary uses, primary users, and out-of-scope uses. Until then this model has no "
    "stated use."
)
_FACTORS: Final = (
    "Results are given by site, the only grouping that the run knows. "
    f"{TO_FILL_IN} other groups (age, sex, equipment, …) for which the model should be evaluated."
)
_SHEET: Final = "DATA_SHEET.md lists what each site reported about its rows, in aggregate form."
_PRIVACY: Final = (
    "PRIVACY.md lists what each site sent and how it was protected. This bundle contains no rows."
)


def _details(facts: Facts, digest: str) -> list[str]:
    finished = str(facts.summary.get("finished", ""))[:10] or sentences.NOT_RECORDED
    return [
        f"- {sentences.purpose_of_run(facts)}",
        f"- Type: Keras model {facts.scenario.model.name}; it takes the raw columns in schema.json.",
        f"- File: model.keras, SHA-256 {digest}.",
        f"- Finished: {finished}. {sentences.environment(facts)}",
        f"- {TO_FILL_IN} developers, licence, contact.",
    ]


def _metrics(facts: Facts) -> str:
    names = ", ".join(metric_name(name) for name in tested_metrics(facts.sites)) or sentences.NOT_RECORDED
    resamples = facts.scenario.output.bootstrap
    how = (
        f"Brackets show 95 % bootstrap intervals over a site's test rows ({count(resamples)} resamples)."
        if resamples
        else "No intervals were computed."
    )
    return f"{names}. {how} {sentences.chosen_round(facts)} Each site counts once in means."


def _quantitative(facts: Facts) -> list[str]:
    """Return a table over all sites, and one by site for each metric."""
    present = models(facts.sites)
    if not present:
        return [f"{sentences.NOT_RECORDED}: the final test did not take place."]
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
    """Describe the preprocessing inside the model file."""
    config = facts.scenario.preprocessing
    lines = ["Fitted from aggregates of the sites; it is part of model.keras.", ""]
    if spec["numeric"]:
        indicators = sum(column["indicator"] for column in spec["numeric"])
        lines.append(
            f"- {count(len(spec['numeric']))} numeric columns: missing values filled ({config.impute}), "
            f"scaled ({config.scale}), {count(indicators)} with an indicator for missing values."
        )
    if spec["categorical"]:
        kept = sum(len(column["categories"]) for column in spec["categorical"])
        lines.append(
            f"- {count(len(spec['categorical']))} categorical columns: one-hot, {count(kept)} categories "
            "kept; unknown and missing values have their own inputs."
        )
    if spec["tokens"]:
        vocabulary, length = spec["tokens"]["vocabulary"], spec["tokens"]["length"]
        lines.append(
            f"- Text: vocabulary of {count(len(vocabulary))} words, rows cut or padded to {length} words."
        )
    if spec["image"]:
        lines.append(
            f"- Images of shape {tuple(spec['image']['shape'])}, scaled by {spec['image']['factor']:.4g}."
        )
    if spec["sequence"]:
        lines.append(f"- Sequences of shape {tuple(spec['sequence']['shape'])}, each channel standardised.")
    return [*lines, "", sentences.disclosure_rule(facts)]


def _caveats(facts: Facts) -> list[str]:
    verdict = facts.verdict
    caveats = [f"{verdict.headline}.", *verdict.sentences, sentences.failures(facts)]
    return [*(f"- {sentence}" for sentence in caveats), f"- {TO_FILL_IN} what users should watch for."]
