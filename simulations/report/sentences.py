"""What a run recorded, as sentences.

Each function says what the run folder holds and nothing else; what it does not hold is `NOT_RECORDED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shoal.common.config import Scenario
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.leakage import bound, inversion_rows, membership_rows
from shoal.simulations.report.privacy import kept_word
from shoal.simulations.results.sites import models, over_sites
from shoal.simulations.results.text import MODEL_NAMES, count, metric_name, number, size

NOT_RECORDED: Final = "not recorded"  # by the run: whoever assesses has to find out


def purpose_of_run(facts: Facts) -> str:
    """Say what is learnt from what."""
    scenario = facts.scenario
    about = f"{scenario.description.rstrip('.')}. " if scenario.description else ""
    label = f' to predict "{scenario.data.label}"' if scenario.data.label else ""
    return (
        f'{about}Scenario "{scenario.name}" trains the model {scenario.model.name}{label} by '
        f"{scenario.strategy.name} over {count(facts.scenario.training.rounds)} rounds at most, each with "
        f"{_local_work(scenario)} at a site."
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
    told = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    rates = {str(column["name"]): column.get("missing_rate") or 0.0 for column in columns}
    some = [name for name, rate in rates.items() if rate]
    most = max(some, key=lambda name: rates[name], default="")
    missing = f" {len(some)} of them miss values, most {most} ({rates[most]:.1%})." if some else ""
    summed = facts.overview.get("train_rows")
    size_of = f"{count(rows)} rows"
    if not rows:  # sites told sums only
        size_of = (
            f"{count(int(summed))} training rows by sum" if summed else f"Rows ({NOT_RECORDED} how many)"
        )
    return f"{size_of} at {_sites(len(clients))}; input columns: {told or 'none'}.{missing}"


def where_rows_are(facts: Facts) -> str:
    """Say on which machines the rows were."""
    if facts.pilot:
        return "With the sites: the server had names of sites, a schema and what the sites sent."
    return "On the machines of the simulation, all sites' rows together; the sites are simulated."


def disclosure_rule(facts: Facts) -> str:
    """Say what may leave a site."""
    from shoal.common.preprocessing.sums.noise import is_asked_for_sums  # imports numpy and scipy

    rule, privacy = facts.scenario.preprocessing, facts.scenario.privacy
    if is_asked_for_sums(facts.scenario):
        noised = privacy.statistics_epsilon is not None and privacy.unit != "client"
        behind = (
            "with noise in place of a least number of rows, but for names"
            if noised
            else f"in which at least {rule.min_count} of its rows stand behind each number"
        )
        return (
            f"Statistics leave a site as vectors for a sum over sites, {behind}; names are used only if at "
            f"least {_sites(rule.min_sites)} told of them. Rows never leave; weights, metrics and these "
            "vectors do. Both ends check each reply against one list of what it may hold."
        )
    return (
        f"Statistics leave a site only if at least {rule.min_count} of its rows stand behind them, and are "
        f"used only if at least {_sites(rule.min_sites)} told of them. Rows never leave; weights, metrics "
        "and these statistics do. Both ends check each reply against one list of what it may hold."
    )


def what_left(facts: Facts) -> str:
    """Say how much left the sites, by kind of message."""
    if not facts.left:
        return NOT_RECORDED
    kinds: dict[str, tuple[int, int]] = {}
    for row in facts.left:
        before, total = kinds.get(row.kind, (0, 0))
        kinds[row.kind] = before + row.messages, total + row.bytes
    told = "; ".join(f"{kind}: {messages(m)}, {size(b)}" for kind, (m, b) in kinds.items())
    source = "audit log" if facts.logged else "rows of the rounds, which lack statistics and final test"
    return f"{told} (from the {source})."


def privacy(facts: Facts) -> str:
    """Say what differential privacy the run had, and what it did not cover."""
    told: Mapping[str, Any] = facts.summary.get("privacy") or {}
    if not told:
        unit = facts.scenario.privacy.unit
        if unit != "none":
            return f'The configuration asks for privacy.unit = "{unit}"; what was spent is {NOT_RECORDED}.'
        noise = facts.scenario.update.noise_stddev
        beside = f" Noise of standard deviation {noise:g} was added without an account." if noise else ""
        return f"No differential privacy: no epsilon holds for this run.{beside}"
    names = ("accountant", "noise_multiplier", "clip_norm", "noise_source", "sampling")
    said = "; ".join(f"{n.replace('_', ' ')} {_short(told[n])}" for n in names if told.get(n) is not None)
    text = f"Unit {told.get('unit', NOT_RECORDED)}: epsilon {_short(told.get('epsilon'))} at delta "
    text += f"{_short(told.get('delta'))}; {said}." if said else f"{_short(told.get('delta'))}."
    if told.get("holds") and told.get("neighbours"):
        text += f" It holds {told['holds']}, for data that {told['neighbours']}."
    for key, words in (("covers", "It covers"), ("not_covered", "It does not cover")):
        if told.get(key):
            text += f" {words}: {'; '.join(map(str, told[key]))}."
    return text


def attacks(facts: Facts) -> str:
    """Say what attacks on the run found."""
    if not facts.leakage:
        return f"{NOT_RECORDED}: `shoal leakage` attacks a finished simulation."
    tried = [
        f"{name}: AUC {auc}, {found} of the members found at 0.1 % false alarms"
        for name, _, _, auc, found, *_ in membership_rows(facts.leakage)
    ]
    tried += [
        f"an update on {batch} training row{'s' if batch != '1' else ''}, {how}: {recognised} recognised"
        for batch, how, who, recognised, *_ in inversion_rows(facts.leakage)
        if who == "attack"
    ]
    told = [f"{'; '.join(tried)}."] if tried else []
    return " ".join([*told, *bound(facts.leakage), "An attack that fails proves nothing."])


def secure_aggregation(facts: Facts) -> str:
    """Say whether the server saw single updates."""
    secure = facts.scenario.secure
    if not secure.aggregation:
        return "No secure aggregation: the server saw each site's statistics and updates by themselves."
    kinds = {row.kind for row in facts.left} if facts.logged else set()
    statistics = ""
    if "query.statistics" in kinds:
        statistics = " Statistics of preprocessing came by site, without masks."
    elif "query.secure_vector" in kinds:
        statistics = " Statistics of preprocessing were summed under masks too."
    return (
        "Secure aggregation: updates were summed under masks, and the server got their sum over sites. It "
        f"allows for up to {secure.max_dropout:.0%} of a cohort lost and up to {secure.max_colluding:.0%} of "
        f"the sites colluding with the server.{statistics} Metrics came by site."
    )


def transmission(facts: Facts) -> str:
    """Say how messages travelled."""
    if not facts.pilot:
        over = ", over gRPC with mutual TLS" if facts.scenario.resources.transport == "grpc" else ""
        return f"Within the machines of the simulation{over}; no site was elsewhere."
    tls = _had_tls(facts)
    if tls is None:
        return f"Over a network; with what encryption is {NOT_RECORDED}."
    return (
        "Over gRPC, encrypted by TLS." if tls else "Over gRPC in plain text, within one machine (--insecure)."
    )


def authentication(facts: Facts) -> str:
    """Say how sites and server knew each other."""
    if not facts.pilot:
        return "No site was elsewhere: there was nobody to authenticate."
    tls = _had_tls(facts)
    if tls is None:
        return f"{NOT_RECORDED}."
    if not tls:
        return "None (--insecure): sites were taken at their word."
    return (
        "By certificates of the pilot's authority, the server's and each site's; a site was admitted by the "
        "name in its certificate, if the operator had listed it."
    )


def integrity(facts: Facts) -> str:
    """Say how a change of a message is noticed."""
    if not facts.pilot:
        return transmission(facts)
    return "Each payload carries its SHA-256, which the other end checks and both ends log."


def audit(facts: Facts) -> str:
    """Say whether there is an audit log, and its root."""
    chain = facts.chain
    if chain is None:
        return f"{NOT_RECORDED}: the run wrote no audit log (output.audit)."
    if chain.fault is not None and chain.fault.what == "torn end":
        return f"The audit log ends in half a line: its process was killed, or is writing. Root {chain.root}."
    if chain.fault is not None:
        return f"The audit log does not hold: line {chain.fault.line}, {chain.fault.what}."
    return (
        f"{messages(len(chain.messages()))} in a hash chain from {chain.entries[0]['time']} to "
        f"{chain.entries[-1]['time']}; it holds; root {chain.root}."
    )


def failures(facts: Facts) -> str:
    """Say how many requests failed."""
    return f"{count(facts.failed)} of {count(facts.asked)} requests in rounds came back without a result."


def results(facts: Facts) -> str:
    """Say how good the models are over sites, on held-out rows."""
    metric, told = facts.metric, []
    for model in models(facts.sites) if metric else ():
        across = over_sites(facts.sites, model, metric or "")
        if across:
            worst = f"worst {number(across.worst)} at {across.worst_site}"
            told.append(f"{MODEL_NAMES[model]}: mean {number(across.mean)}, {worst}")
    if not told or metric is None:
        return NOT_RECORDED
    return f"{metric_name(metric)} on each site's held-out test rows. {'; '.join(told)}."


def chosen_round(facts: Facts) -> str:
    """Say of which round the model is, and why."""
    number_of = facts.summary.get("best_round")
    if number_of is None:
        return f"The model's round is {NOT_RECORDED}."
    if kept_word(facts.scenario) == "last":
        return f"The model is of round {number_of}, the last: nothing was chosen by what rows say."
    if not facts.scenario.data.validation_fraction:
        return f"The model is of round {number_of}, the last: there were no validation rows."
    by = "" if facts.metric is None else f" by {metric_name(facts.metric)}"
    return f"The model is of round {number_of}, the best{by} on validation rows."


def testing(facts: Facts) -> str:
    """Say on what the models were tested."""
    tested = [row for row in facts.sites if row.tests]
    if not tested:
        return f"{NOT_RECORDED}: the final test did not take place."
    rows, resamples = sum(row.test_rows for row in tested), facts.scenario.output.bootstrap
    how = f"95 % bootstrap intervals of {count(resamples)} resamples" if resamples else "no intervals"
    how_many = f"{count(rows)} rows" if rows else f"rows ({NOT_RECORDED} how many)"
    return (
        f"{_sites(len(tested))}, {how_many} that no training saw, drawn by seed from each site's own "
        f"(test_fraction {facts.scenario.data.test_fraction:g}); {how}."
    )


def environment(facts: Facts) -> str:
    """Say by what software the run was made."""
    versions = facts.environment.get("versions") or {}
    if not versions:
        return NOT_RECORDED
    git = facts.environment.get("git")
    commit = f"; commit {git['commit']}{' with changes' if git['changed'] else ''}" if git else ""
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return f"Seed {facts.scenario.seed}; {told}{commit}."


def _had_tls(facts: Facts) -> bool | None:
    """Whether each start of the server had certificates; `None` where that is not recorded."""
    begins = [entry for entry in facts.chain.entries if entry["event"] == "begin"] if facts.chain else []
    told = [entry.get("tls") for entry in begins]
    return None if not told or None in told else all(told)


def messages(number_of: int) -> str:
    """Return e.g. "1 message"."""
    return f"{count(number_of)} message{'s' if number_of != 1 else ''}"


def _sites(number_of: int) -> str:
    return f"{count(number_of)} site{'s' if number_of != 1 else ''}"


def _short(value: object) -> str:
    if value is None:
        return NOT_RECORDED
    return f"{value:.4g}" if isinstance(value, float) else str(value)
