"""Sentences about what a run recorded.

Each function states only what is in the run folder; anything missing there is `NOT_RECORDED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shoal.common.config import Scenario
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.leakage import bound, inversion_rows, membership_rows
from shoal.simulations.report.privacy import kept_word
from shoal.simulations.results.sites import models, over_sites
from shoal.simulations.results.text import MODEL_NAMES, count, metric_name, number, size

NOT_RECORDED: Final = "not recorded"  # by the run; the assessor must find out


def purpose_of_run(facts: Facts) -> str:
    """Say which model is trained for which task, and how."""
    scenario = facts.scenario
    about = f"{scenario.description.rstrip('.')}. " if scenario.description else ""
    label = f' to predict "{scenario.data.label}"' if scenario.data.label else ""
    return (
        f'{about}Scenario "{scenario.name}" trains the model {scenario.model.name}{label} with '
        f"{scenario.strategy.name} for at most {count(facts.scenario.training.rounds)} rounds, each with "
        f"{_local_work(scenario)} at each site."
    )


def _local_work(scenario: Scenario) -> str:
    training = scenario.training
    if training.local_steps is not None:
        return f"{count(training.local_steps)} optimisation steps"
    return f"{training.local_epochs} pass{'es' if training.local_epochs != 1 else ''} over the rows"


def data_of_run(facts: Facts) -> str:
    """Say how many sites, rows and columns there are."""
    clients, columns = facts.overview.get("clients") or [], facts.overview.get("columns") or []
    if not clients:
        return NOT_RECORDED
    rows = sum(client.get("rows") or 0 for client in clients)
    kinds = [str(column.get("kind", "")) for column in columns]
    by_kind = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    rates = {str(column["name"]): column.get("missing_rate") or 0.0 for column in columns}
    some = [name for name, rate in rates.items() if rate]
    most = max(some, key=lambda name: rates[name], default="")
    missing = f" {len(some)} of them have missing values, most {most} ({rates[most]:.1%})." if some else ""
    summed = facts.overview.get("train_rows")
    size_of = f"{count(rows)} rows"
    if not rows:  # only the sum over sites is known
        size_of = (
            f"{count(int(summed))} training rows in total"
            if summed
            else f"An unknown number of rows ({NOT_RECORDED})"
        )
    return f"{size_of} at {_sites(len(clients))}; input columns: {by_kind or 'none'}.{missing}"


def where_rows_are(facts: Facts) -> str:
    """Say on which machines the rows were."""
    if facts.pilot:
        return "At the sites. The server had the names of the sites, the schema, and what the sites sent."
    return "All rows were on the machines of the simulation; the sites are simulated."


def disclosure_rule(facts: Facts) -> str:
    """Say what a site may send."""
    from shoal.common.preprocessing.sums.noise import is_asked_for_sums  # imports numpy and scipy

    rule, privacy = facts.scenario.preprocessing, facts.scenario.privacy
    if is_asked_for_sums(facts.scenario):
        noised = privacy.statistics_epsilon is not None and not mechanism_of(privacy).server_noise
        behind = (
            "protected by noise instead of a minimum number of rows (except names of categories and words)"
            if noised
            else f"each value based on at least {rule.min_count} of its rows"
        )
        return (
            f"A site sends statistics as vectors for a sum over sites, {behind}; names of categories and "
            f"words are used only if at least {_sites(rule.min_sites)} reported them. A site never sends "
            "rows, only weights, metrics and these vectors. Both sides check each reply against one list of "
            "allowed contents."
        )
    return (
        f"A site sends a statistic only if it is based on at least {rule.min_count} of its rows, and the "
        f"server uses it only if at least {_sites(rule.min_sites)} reported it. A site never sends rows, "
        "only weights, metrics and these statistics. Both sides check each reply against one list of allowed "
        "contents."
    )


def what_left(facts: Facts) -> str:
    """Say how much the sites sent, by kind of message."""
    if not facts.sent:
        return NOT_RECORDED
    kinds: dict[str, tuple[int, int]] = {}
    for row in facts.sent:
        before, total = kinds.get(row.kind, (0, 0))
        kinds[row.kind] = before + row.messages, total + row.bytes
    sent = "; ".join(f"{kind}: {messages(m)}, {size(b)}" for kind, (m, b) in kinds.items())
    source = "audit log" if facts.logged else "records of the rounds, without statistics and final test"
    return f"{sent} (from the {source})."


def privacy(facts: Facts) -> str:
    """Say what differential privacy the run had, and what it did not cover."""
    guarantee: Mapping[str, Any] = facts.summary.get("privacy") or {}
    if not guarantee:
        unit = facts.scenario.privacy.unit
        if unit != "none":
            return f'The configuration sets privacy.unit = "{unit}"; the budget spent is {NOT_RECORDED}.'
        noise = facts.scenario.update.noise_stddev
        extra = f" Noise of standard deviation {noise:g} was added without accounting." if noise else ""
        return f"No differential privacy: this run has no epsilon.{extra}"
    names = ("accountant", "noise_multiplier", "clip_norm", "noise_source", "sampling")
    details = "; ".join(
        f"{n.replace('_', ' ')} {_short(guarantee[n])}" for n in names if guarantee.get(n) is not None
    )
    text = f"Unit {guarantee.get('unit', NOT_RECORDED)}: epsilon {_short(guarantee.get('epsilon'))} at delta "
    text += (
        f"{_short(guarantee.get('delta'))}; {details}." if details else f"{_short(guarantee.get('delta'))}."
    )
    if guarantee.get("holds") and guarantee.get("neighbours"):
        text += f" It holds {guarantee['holds']}, for data sets that {guarantee['neighbours']}."
    against: Mapping[str, Any] = guarantee.get("against") or {}
    if against:
        text += f" Epsilon against {'; '.join(f'{who}: {value}' for who, value in against.items())}."
    for key, words in (("covers", "It covers"), ("not_covered", "It does not cover")):
        if guarantee.get(key):
            text += f" {words}: {'; '.join(map(str, guarantee[key]))}."
    return text


def attacks(facts: Facts) -> str:
    """Say what attacks on the run found."""
    if not facts.leakage:
        return f"{NOT_RECORDED}: `shoal leakage` attacks a finished simulation."
    tried = [
        f"{name}: AUC {auc}, {found} of the members found at a false positive rate of 0.1 %"
        for name, _, _, auc, found, *_ in membership_rows(facts.leakage)
    ]
    tried += [
        f"an update on {batch} training row{'s' if batch != '1' else ''}, {how}: {recognised} recognised"
        for batch, how, who, recognised, *_ in inversion_rows(facts.leakage)
        if who == "attack"
    ]
    results = [f"{'; '.join(tried)}."] if tried else []
    return " ".join([*results, *bound(facts.leakage), "A failed attack proves nothing."])


def secure_aggregation(facts: Facts) -> str:
    """Say whether the server saw single updates."""
    secure = facts.scenario.secure
    if not secure.aggregation:
        return "No secure aggregation: the server saw each site's statistics and updates separately."
    kinds = {row.kind for row in facts.sent} if facts.logged else set()
    statistics = ""
    if "query.statistics" in kinds:
        statistics = " Preprocessing statistics were sent per site, without masks."
    elif "query.secure_vector" in kinds:
        statistics = " Preprocessing statistics were summed under masks too."
    return (
        "Secure aggregation: updates were masked, and the server saw only their sum over sites. It tolerates "
        f"the loss of up to {secure.max_dropout:.0%} of a cohort and up to {secure.max_colluding:.0%} of the "
        f"sites colluding with the server.{statistics} Metrics were sent per site."
    )


def transmission(facts: Facts) -> str:
    """Say how messages were transmitted."""
    if not facts.pilot:
        over = ", over gRPC with mutual TLS" if facts.scenario.resources.transport == "grpc" else ""
        return f"Within the machines of the simulation{over}; there were no real sites."
    tls = _had_tls(facts)
    if tls is None:
        return f"Over a network; the encryption is {NOT_RECORDED}."
    return "Over gRPC, encrypted by TLS." if tls else "Over gRPC, unencrypted, on one machine (--insecure)."


def authentication(facts: Facts) -> str:
    """Say how sites and server authenticated each other."""
    if not facts.pilot:
        return "Not applicable: there were no real sites."
    tls = _had_tls(facts)
    if tls is None:
        return f"{NOT_RECORDED}."
    if not tls:
        return "None (--insecure): sites were not authenticated."
    return (
        "Server and sites had certificates from the pilot's authority. A site was admitted if the operator "
        "had listed the name in its certificate."
    )


def integrity(facts: Facts) -> str:
    """Say how changes to a message are detected."""
    if not facts.pilot:
        return transmission(facts)
    return "Each payload is sent with its SHA-256, which the receiver checks and both sides log."


def audit(facts: Facts) -> str:
    """Say whether there is an audit log, and its root."""
    chain = facts.chain
    if chain is None:
        return f"{NOT_RECORDED}: the run wrote no audit log (output.audit)."
    if chain.fault is not None and chain.fault.what == "torn end":
        return (
            "The audit log ends in an incomplete line: its process was killed, or is writing. "
            f"Root {chain.root}."
        )
    if chain.fault is not None:
        return f"The audit log is not intact: line {chain.fault.line}, {chain.fault.what}."
    return (
        f"{messages(len(chain.messages()))} in a hash chain from {chain.entries[0]['time']} to "
        f"{chain.entries[-1]['time']}; intact; root {chain.root}."
    )


def failures(facts: Facts) -> str:
    """Say how many requests failed."""
    return f"{count(facts.failed)} of {count(facts.asked)} requests in rounds got no result."


def results(facts: Facts) -> str:
    """Say how good the models are over sites, on held-out rows."""
    metric, parts = facts.metric, []
    for model in models(facts.sites) if metric else ():
        across = over_sites(facts.sites, model, metric or "")
        if across:
            worst = f"worst {number(across.worst)} at {across.worst_site}"
            parts.append(f"{MODEL_NAMES[model]}: mean {number(across.mean)}, {worst}")
    if not parts or metric is None:
        return NOT_RECORDED
    return f"{metric_name(metric)} on each site's held-out test rows. {'; '.join(parts)}."


def chosen_round(facts: Facts) -> str:
    """Say which round's model was kept, and why."""
    number_of = facts.summary.get("best_round")
    if number_of is None:
        return f"The round of the model is {NOT_RECORDED}."
    if kept_word(facts.scenario) == "last":
        return (
            f"The model is from round {number_of}, the last: with differential privacy no round is selected."
        )
    if not any(row.best for row in facts.rounds):
        return f"The model is from round {number_of}, the last: no validation metric could choose one."
    by = "" if facts.metric is None else f" by {metric_name(facts.metric)}"
    return f"The model is from round {number_of}, the best{by} on validation rows."


def testing(facts: Facts) -> str:
    """Say on what the models were tested."""
    tested = [row for row in facts.sites if row.tests]
    if not tested:
        return f"{NOT_RECORDED}: the final test did not take place."
    rows, resamples = sum(row.test_rows for row in tested), facts.scenario.output.bootstrap
    how = f"95 % bootstrap intervals of {count(resamples)} resamples" if resamples else "no intervals"
    how_many = f"{count(rows)} rows" if rows else f"an unknown number of rows ({NOT_RECORDED})"
    return (
        f"{_sites(len(tested))}, {how_many} not used in training, drawn by seed from each site's own "
        f"(test_fraction {facts.scenario.data.test_fraction:g}); {how}."
    )


def environment(facts: Facts) -> str:
    """Say which software made the run."""
    versions = facts.environment.get("versions") or {}
    if not versions:
        return NOT_RECORDED
    git = facts.environment.get("git")
    commit = f"; commit {git['commit']}{' with changes' if git['changed'] else ''}" if git else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return f"Seed {facts.scenario.seed}; {packages}{commit}."


def _had_tls(facts: Facts) -> bool | None:
    """Whether the server used certificates at each start; `None` if not recorded."""
    begins = [entry for entry in facts.chain.entries if entry["event"] == "begin"] if facts.chain else []
    encrypted = [entry.get("tls") for entry in begins]
    return None if not encrypted or None in encrypted else all(encrypted)


def messages(number_of: int) -> str:
    """Return e.g. "1 message"."""
    return f"{count(number_of)} message{'s' if number_of != 1 else ''}"


def _sites(number_of: int) -> str:
    return f"{count(number_of)} site{'s' if number_of != 1 else ''}"


def _short(value: object) -> str:
    if value is None:
        return NOT_RECORDED
    return f"{value:.4g}" if isinstance(value, float) else str(value)
