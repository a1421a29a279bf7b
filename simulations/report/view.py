"""The content of the report's template, from a run folder: texts, table rows and figures. No HTML here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.common.events import RoundRow, SiteRow
from shoal.simulations.report import figures_rounds, figures_sites
from shoal.simulations.report.assessment import DISCLAIMER, assess
from shoal.simulations.report.data_view import MOST_ROWS, data_section
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.leakage import leakage_section
from shoal.simulations.report.messages import failures, traffic_by_phase
from shoal.simulations.report.plot import LABELS
from shoal.simulations.report.privacy import kept_word, privacy_section
from shoal.simulations.results.sites import (
    higher_is_better,
    models,
    monitored_metric,
    over_sites,
    tested_metrics,
)
from shoal.simulations.results.text import count, duration, interval_parts, metric_name, number, signed, size

if TYPE_CHECKING:
    from shoal.common.config import Scenario
    from shoal.simulations.results.folder import RunFolder

MOST_SITES = 1_000  # rows of the table of sites; if there are more, its middle is left out
STATUS = {
    "finished": "finished",
    "stopped early": "stopped early, without improvement",
    "interrupted": "interrupted",
    "failed": "failed",
    "running": "still running",
    "killed": "killed",
}


def view(run: RunFolder) -> dict[str, Any]:
    """Return every variable of report.html.j2."""
    clients = run.clients()
    facts = Facts.of(run, clients)
    scenario, summary, rounds, sites = facts.scenario, facts.summary, facts.rounds, facts.sites
    validated = list(dict.fromkeys(name for row in rounds for name in row.metrics))
    metric = monitored_metric(scenario.training, tested_metrics(sites) or validated)
    status = facts.status
    return {
        "scenario": scenario,
        "run_name": run.name,
        "status": STATUS[status],
        "status_good": status in ("finished", "stopped early"),
        "ended": _ended(status, summary, rounds, scenario),
        "started": _started(facts.environment),
        "verdict": facts.verdict,
        "facts": _facts(scenario, rounds, sites, metric),
        "sites": _sites(sites, metric, scenario),
        "over_sites": _over_sites(sites),
        "curves": _curves(rounds, validated, kept_word(scenario)),
        "privacy": privacy_section(scenario, summary, rounds),
        "traffic": _traffic(rounds, traffic_by_phase(clients)),
        "time": _time(rounds),
        "data": data_section(facts.overview, scenario.preprocessing.min_count),
        "leakage": leakage_section(run.leakage()),
        "failures": failures(clients),
        "closed_form": _closed_form(summary),
        "placement": _placement(summary),
        "wire": _wire(summary),
        "environment": _environment(facts.environment),
        "config": _without_home((run.path / "config.toml").read_text(encoding="utf-8")),
        "assessment": {"disclaimer": DISCLAIMER, "frameworks": assess(facts)},
        "messages": [(time[11:19], text) for time, text in run.messages()],
    }


def _started(environment: Mapping[str, Any]) -> str:
    started = str(environment.get("started", ""))
    return f"{started[:10]} {started[11:16]} UTC" if started else ""


def _ended(status: str, summary: Mapping[str, Any], rounds: Sequence[RoundRow], scenario: Scenario) -> str:
    """Say how far a run got that did not finish normally; "" otherwise."""
    if status in ("finished", "stopped early"):
        return ""
    after = (
        f"after round {rounds[-1].round} of {scenario.training.rounds}"
        if rounds
        else "before the first round"
    )
    error = summary.get("error")
    return (
        f"The run is {STATUS[status]}, {after}."
        if status == "running"
        else (
            f"The run {'failed' if status == 'failed' else f'was {STATUS[status]}'} {after}."
            + (f" {error}" if error else "")
        )
    )


def _facts(
    scenario: Scenario, rounds: Sequence[RoundRow], sites: Sequence[SiteRow], metric: str | None
) -> list[dict[str, str]]:
    """Return the key figures: label, value, note, and the model that sets the colour."""
    facts = []
    for model in models(sites):
        across = over_sites(sites, model, metric) if metric else None
        if across and metric:
            note = f"mean {metric_name(metric)}"
            facts.append({"label": LABELS[model], "value": number(across.mean), "note": note, "model": model})
    trained = [row for row in rounds if row.round]
    if trained:
        best = [row.round for row in rounds if row.best]
        facts.append(
            {
                "label": "Rounds",
                "value": f"{trained[-1].round} / {scenario.training.rounds}",
                "note": f"{kept_word(scenario)}: {best[-1]}" if best else "none evaluated",
            }
        )
        clients = max(row.cohort for row in trained)
        facts.append({"label": "Cohort", "value": count(clients), "note": "clients per round"})
        facts.append(
            {
                "label": "Time",
                "value": duration(sum(row.seconds for row in rounds)),
                "note": "in federated rounds",
            }
        )
        moved = sum(row.bytes_up + row.bytes_down for row in rounds)
        facts.append({"label": "Traffic", "value": size(moved), "note": "both directions"})
    return [{"model": "", **fact} for fact in facts]


def _sites(sites: Sequence[SiteRow], metric: str | None, scenario: Scenario) -> dict[str, Any] | None:
    if not sites or metric is None:
        return None
    many = len(sites) > figures_sites.MANY
    present = models(sites)
    ordered = (
        _by_value(sites, metric) if many else sorted(sites, key=lambda row: (-row.train_rows, row.client))
    )
    # -1 means "too few to report" only for a binary task; other tasks have it at every site.
    positives = any(row.positives >= 0 for row in sites)
    ends = MOST_SITES // 2
    listed = ordered if len(ordered) <= MOST_SITES else [*ordered[:ends], *ordered[-ends:]]
    rows = [_site(row, metric, present, f"<{scenario.preprocessing.min_count}") for row in listed]
    plots = (
        [figures_sites.distribution(sites, metric), figures_sites.gains(sites, metric)]
        if many
        else [figures_sites.by_site(ordered, metric)]
    )
    compared = "local" in present and "federated" in present
    return {
        "metric": metric_name(metric),
        "note": _sites_note(metric, scenario, compared, len(ordered)) + _positives_note(sites, scenario),
        "models": [(model, LABELS[model]) for model in present],
        "compared": compared,
        "positives": positives,
        "rows": rows,
        "figures": [plot for plot in plots if plot],
        "others": _others(ordered, metric, present) if not many else [],
    }


def _sites_note(metric: str, scenario: Scenario, compared: bool, sites: int) -> str:
    name = metric_name(metric)
    note = f"{name[:1].upper()}{name[1:]} on each site's own held-out test rows"
    note += ", with the 95 % bootstrap interval." if scenario.output.bootstrap else "."
    if not higher_is_better(metric):
        note += " Lower is better."
    if compared:
        note += " The difference is federated minus local-only."
    if sites > figures_sites.MANY:
        note += " The table begins with the worst federated site"
        note += (
            f"; the {MOST_SITES // 2} worst and best of {sites:,} are listed." if sites > MOST_SITES else "."
        )
    return note


def _positives_note(sites: Sequence[SiteRow], scenario: Scenario) -> str:
    if not any(row.positives >= 0 for row in sites) or all(row.positives >= 0 for row in sites):
        return ""
    min_count = scenario.preprocessing.min_count
    return (
        f" Positives are shown as <{min_count} if fewer than {min_count} test rows are positive, or fewer "
        f"than {min_count} are negative."
    )


def _by_value(sites: Sequence[SiteRow], metric: str) -> list[SiteRow]:
    """Return the sites with a value, worst federated value first."""
    values = {
        row.client: tests[metric].value
        for row in sites
        if metric in (tests := row.tests.get("federated", {}))
    }
    defined = [row for row in sites if math.isfinite(values.get(row.client, math.nan))]
    return sorted(defined, key=lambda row: values[row.client], reverse=not higher_is_better(metric))


def _site(row: SiteRow, metric: str, present: Sequence[Any], too_few: str) -> dict[str, Any]:
    values = {model: row.tests.get(model, {}).get(metric) for model in present}
    ours, local = values.get("federated"), values.get("local")
    return {
        "name": row.name,
        "train_rows": count(row.train_rows),
        "test_rows": count(row.test_rows),
        "positives": too_few if row.positives < 0 else count(row.positives),
        "values": [(model, interval_parts(values[model])) for model in present],
        "gain": signed(ours.value - local.value) if ours and local else "",
    }


def _others(rows: Sequence[SiteRow], metric: str, present: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a table for each of the other metrics."""
    return [
        {
            "metric": metric_name(other),
            "rows": [
                (row.name, [interval_parts(row.tests.get(model, {}).get(other)) for model in present])
                for row in rows
            ],
        }
        for other in tested_metrics(rows)
        if other != metric
    ]


def _over_sites(sites: Sequence[SiteRow]) -> list[dict[str, Any]]:
    found = []
    present = models(sites)
    for metric in tested_metrics(sites):
        for model in present:
            across = over_sites(sites, model, metric)
            if across:
                figures = (across.mean, across.worst, across.worst_tenth, across.std, across.spread)
                found.append(
                    {
                        "metric": metric_name(metric) if model == present[0] else "",
                        "model": model,
                        "label": LABELS[model],
                        "values": [number(value) for value in figures],
                        "worst_site": across.worst_site,
                    }
                )
    return found


def _curves(rounds: Sequence[RoundRow], metrics: Sequence[str], kept: str) -> list[dict[str, Any]]:
    names = dict.fromkeys(["loss", *metrics])
    drawn = ((name, figures_rounds.curve(rounds, name, kept)) for name in names)
    return [{"name": metric_name(name), "figure": figure} for name, figure in drawn if figure]


def _traffic(rounds: Sequence[RoundRow], by_phase: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not rounds:
        return None
    return {
        "up": size(sum(row.bytes_up for row in rounds)),
        "down": size(sum(row.bytes_down for row in rounds)),
        "round": figures_rounds.traffic(rounds),
        "cumulative": figures_rounds.cumulative_traffic(rounds),
        "phases": by_phase,
    }


def _time(rounds: Sequence[RoundRow]) -> dict[str, Any] | None:
    trained = [row for row in rounds if row.round]
    if not trained:
        return None
    seconds = sorted(row.seconds for row in trained)
    phases = {name: sum(row.phases.get(name, 0.0) for row in rounds) for row in rounds for name in row.phases}
    total = sum(phases.values())
    return {
        "total": duration(sum(row.seconds for row in rounds)),
        "median": duration(seconds[len(seconds) // 2]),
        "shares": [
            (name, duration(spent), f"{spent / total:.0%}") for name, spent in phases.items() if total > 0
        ],
        "phases": figures_rounds.time(rounds),
        "speed": figures_rounds.speed(rounds),
    }


def _closed_form(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    found = summary.get("closed_form") or {}
    return [
        (name, f"{pair['learnt']:.6g}", f"{pair['exact']:.6g}", f"{abs(pair['learnt'] - pair['exact']):.2g}")
        for name, pair in found.items()
    ]


def _placement(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the work of each node, if there was more than one or workers were lost or replaced."""
    found = summary.get("placement") or []
    return [
        (
            load["node"],
            ", ".join(
                [f"{load['workers']}", *(f"{load[k]} {k}" for k in ("lost", "replaced") if load.get(k))]
            ),
            f"{load['messages']:,}",
            duration(load["seconds"]),
            size(load["bytes_down"]),
            size(load["bytes_up"]),
        )
        for load in found
        if len(found) > 1 or load["lost"] or load.get("replaced")
    ]


def _wire(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the network traffic by client; the first ones if there are very many."""
    return [
        (
            load["name"],
            f"{load['tasks']:,}",
            size(load["bytes_down"]),
            size(load["bytes_up"]),
            duration(load["seconds"] / load["replies"]) if load["replies"] else "–",
            duration(load["longest"]),
            f"{load['connections']:,}",
        )
        for load in (summary.get("wire") or [])[:MOST_ROWS]
    ]


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, git = environment.get("machine") or {}, environment.get("git")
    rows = [
        (name, version or "not installed") for name, version in (environment.get("versions") or {}).items()
    ]
    if machine:
        rows += [
            ("processor", f"{machine['cpu']}, {machine['cores']} cores, {machine['architecture']}"),
            ("memory", size(machine["memory_bytes"])),
            ("system", machine["os"]),
        ]
    if git:
        rows.append(("commit", git["commit"] + (" with changes" if git["changed"] else "")))
    if "seed" in environment:
        rows.append(("seed", str(environment["seed"])))
    return rows


def _without_home(text: str) -> str:
    """Hide the home directory, which contains a person's name: reports are shared."""
    home = str(Path.home())
    return text if home in ("/", "/root") else text.replace(home, "~")
