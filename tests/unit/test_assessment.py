"""Facts of a run under an officer's questions: each is of the run, and what was not recorded says so."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.common.audit.log import AUDIT_LOG, AuditLog, MessageEntry
from shoal.common.config import Scenario
from shoal.simulations.report import sentences as told
from shoal.simulations.report import write_report
from shoal.simulations.report.assessment import DISCLAIMER, QUESTIONS, assess, assessment_markdown
from shoal.simulations.report.facts import Facts, SentMessages
from shoal.simulations.report.sentences import NOT_RECORDED
from shoal.simulations.results import RunFolder
from shoal.simulations.results.folder import SERVED

_SPEC = importlib.util.spec_from_file_location("example_run", Path(__file__).with_name("example_run.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)

LEDGER = {
    "unit": "client",
    "epsilon": 2.987654,
    "delta": 1e-5,
    "accountant": "rdp",
    "noise_multiplier": 1.1,
    "clip_norm": 0.5,
    "noise_source": "operating system",
    "sampling": "poisson",
    "holds": "against everyone who sees the models",
    "neighbours": "differ in one client",
    "covers": ["the weights"],
    "not_covered": ["statistics, which have no noise", "metrics"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder.create(example.scenario(tmp_path_factory.mktemp("runs")))
    rows = example.make_sites()
    run.write_overview(example.overview(rows))
    weights = example.tell_rounds(run, rows, 6, failing="SVHC")
    run.on_sites(example.final_test(weights, rows, 18))
    run.finish("finished", {})
    write_report(run)
    return run


@pytest.fixture(scope="module")
def facts(run: RunFolder) -> Facts:
    return Facts.of(run)


def changed(facts: Facts, **sections: dict[str, object]) -> Facts:
    scenario = Scenario.model_validate(facts.scenario.model_dump() | sections)
    return dataclasses.replace(facts, scenario=scenario)


def test_each_question_of_each_framework_has_an_answer_in_report_and_document(
    run: RunFolder, facts: Facts
) -> None:
    assert [name.split()[0].strip(",") for name in QUESTIONS] == ["GDPR", "HIPAA", "SR"]
    page = re.sub(r"\s+", " ", (run.path / "report.html").read_text()).replace("&#39;", "'")
    document = assessment_markdown(facts)
    for _, answers in assess(facts):
        for question, answer in answers:
            assert answer.strip()
            assert answer.rstrip().endswith(".")
            assert f"**{question}**\n\n{answer}\n" in document
            assert f"<dt>{question}</dt>" in page
    assert DISCLAIMER in page
    assert DISCLAIMER in document


def test_it_claims_nothing(facts: Facts) -> None:
    words = assessment_markdown(facts).lower()
    assert "not a legal assessment" in words
    for claim in ("complies", "compliant", "fulfil", "anonymous", "anonymised", "is de-identified"):
        assert claim not in words


def test_facts_are_the_numbers_of_the_run(facts: Facts) -> None:
    # 5493 + 2394 + 956 + 255 + 71 rows of the example's sites
    assert told.data_of_run(facts).startswith("9,169 rows at 5 sites; input columns: 7 numeric.")
    # 7 evaluations (rounds 0 to 6) and 6 trainings of 5 sites, of which one failed
    assert told.failures(facts) == "1 of 65 requests in rounds got no result."
    # 30 trainings, the failed one with 0 bytes: 29 · 4 · (24 features + 1); 35 evaluations of 48 bytes
    assert told.what_left(facts).startswith(
        "evaluate: 35 messages, 1.7 kB; train: 30 messages, 2.9 kB (from the records"
    )
    assert "at least 5 of its rows" in told.disclosure_rule(facts)
    assert "Seed 1;" in told.environment(facts)


def test_sites_that_reported_sums_only_are_not_said_to_have_no_rows(facts: Facts) -> None:
    clients = [{**client, "rows": None, "train_rows": None} for client in facts.overview["clients"]]
    sites = [dataclasses.replace(row, train_rows=0, test_rows=0) for row in facts.sites]
    summed = dataclasses.replace(facts, overview={**facts.overview, "clients": clients}, sites=sites)
    assert told.data_of_run(summed).startswith("An unknown number of rows (not recorded) at 5 sites;")
    counted = dataclasses.replace(summed, overview={**summed.overview, "train_rows": 6418.0})
    assert told.data_of_run(counted).startswith("6,418 training rows in total at 5 sites;")
    assert "5 sites, an unknown number of rows (not recorded) not used in training" in told.testing(summed)
    private = changed(facts, secure={"aggregation": True})
    assert (
        "as vectors for a sum over sites, each value based on at least 5 of its rows"
        in told.disclosure_rule(private)
    )
    noised = {"unit": "record", "noise_multiplier": 1.0, "statistics_epsilon": 1.0}
    assert "protected by noise instead of a minimum number of rows" in told.disclosure_rule(
        changed(facts, privacy=noised)
    )


def test_what_was_not_recorded_says_so(facts: Facts) -> None:
    assert told.audit(facts).startswith(NOT_RECORDED)
    assert told.attacks(facts).startswith(NOT_RECORDED)
    empty = dataclasses.replace(facts, sites=[], overview={}, environment={}, sent=[])
    for fact in (told.results, told.testing, told.data_of_run, told.environment, told.what_left):
        assert fact(empty).startswith(NOT_RECORDED)


def test_privacy_is_what_the_ledger_holds(facts: Facts) -> None:
    assert told.privacy(facts) == "No differential privacy: this run has no epsilon."
    noised = changed(facts, update={"noise_stddev": 0.1})
    assert "standard deviation 0.1 was added without accounting" in told.privacy(noised)
    asked = changed(facts, privacy={"unit": "client", "epsilon": 3.0})
    assert "the budget spent is not recorded" in told.privacy(asked)
    spent = dataclasses.replace(facts, summary={"privacy": LEDGER})
    assert told.privacy(spent) == (
        "Unit client: epsilon 2.988 at delta 1e-05; accountant rdp; noise multiplier 1.1; clip norm 0.5; "
        "noise source operating system; sampling poisson. It holds against everyone who sees the models, "
        "for data sets that differ in one client. It covers: the weights. It does not cover: statistics, "
        "which have no noise; metrics."
    )


def test_the_round_of_the_model_is_reported_with_the_reason(facts: Facts) -> None:
    best = [row.round for row in facts.rounds if row.best][-1]
    assert told.chosen_round(facts) == f"The model is from round {best}, the best by AUC on validation rows."
    private = changed(facts, privacy={"unit": "client", "noise_multiplier": 1.0})
    assert "the last: with differential privacy no round is selected" in told.chosen_round(private)
    blind = replace(facts, rounds=[replace(row, best=False) for row in facts.rounds])
    assert "the last: no validation metric could choose one" in told.chosen_round(blind)


def test_secure_aggregation_is_what_the_configuration_says(facts: Facts) -> None:
    assert told.secure_aggregation(facts).startswith("No secure aggregation")
    on = changed(facts, secure={"aggregation": True, "max_dropout": 0.1, "max_colluding": 0.25})
    said = told.secure_aggregation(on)
    assert "loss of up to 10% of a cohort and up to 25% of the sites colluding" in said
    assert "statistics" not in said  # the rows of the rounds do not tell how those came
    for kind, how in (
        ("query.statistics", "sent per site, without"),
        ("query.secure_vector", "summed under"),
    ):
        logged = dataclasses.replace(on, logged=True, sent=[SentMessages("SVI", kind, 1, 100)])
        assert f"Preprocessing statistics {how}" in told.secure_aggregation(logged).replace("were ", "")


@pytest.mark.parametrize(("tls", "said"), [(True, "encrypted by TLS"), (False, "unencrypted")])
def test_a_pilot_reports_how_its_messages_went(tmp_path: Path, tls: bool, said: str) -> None:
    pilot = RunFolder.create(example.scenario(tmp_path))
    (pilot.path / SERVED).write_text("[]")
    assert told.transmission(Facts.of(pilot)).endswith("the encryption is not recorded.")
    log = AuditLog(pilot.path / AUDIT_LOG, {"side": "server", "clients": ["SVI"], "tls": tls})
    for kind, size in (("query.statistics", 700), ("train", 2000), ("train", 2000)):
        log.note(MessageEntry("sent", "SVI", kind, None, 1, "0" * 64))
        log.note(MessageEntry("received", "SVI", kind, None, size, "0" * 64))
    log.close()
    facts = Facts.of(pilot)
    assert said in told.transmission(facts)
    assert "not authenticated" in told.authentication(facts) or tls
    assert told.what_left(facts) == (
        "query.statistics: 1 message, 700 B; train: 2 messages, 4.0 kB (from the audit log)."
    )
    assert f"root {log.root}" in told.audit(facts)
    content = (pilot.path / AUDIT_LOG).read_bytes()
    (pilot.path / AUDIT_LOG).write_bytes(content.replace(b"2000", b"2001", 1))
    assert told.audit(Facts.of(pilot)) == "The audit log is not intact: line 5, changed."
