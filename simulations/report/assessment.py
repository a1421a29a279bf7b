"""Facts about a run, arranged under the questions of a data-protection or model-risk officer.

The questions follow article 35(7) of Regulation (EU) 2016/679 (GDPR), 45 CFR 164 (HIPAA), and SR 11-7 of the
Board of Governors of the Federal Reserve System. They are shortened, and the answers are only what the run
recorded: the assessor must complete them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from shoal.simulations.report import sentences
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.markdown import document
from shoal.simulations.report.sentences import NOT_RECORDED
from shoal.simulations.results.text import count

DISCLAIMER: Final = (
    "This is not a legal assessment, and does not claim that any rule is met. It lists what this run "
    "recorded, arranged under the questions of such assessments, as material for the assessor."
)

Fact = Callable[[Facts], str]


def _not_recorded(about: str) -> Fact:
    return lambda facts: f"{NOT_RECORDED}: {about}."


def _alternatives(facts: Facts) -> str:
    return " ".join([f"{facts.verdict.headline}.", sentences.results(facts)])


def _limits(facts: Facts) -> str:
    return " ".join(facts.verdict.sentences) or NOT_RECORDED


def _risks(facts: Facts) -> str:
    seen = sentences.secure_aggregation(facts)
    return (
        f"Model updates can reveal information about the rows behind them. {seen} {sentences.privacy(facts)}"
    )


def _course(facts: Facts) -> str:
    done = sum(row.round > 0 for row in facts.rounds)
    return f"Status of the run: {facts.status}, after {count(done)} rounds. {sentences.chosen_round(facts)}"


def _selection(facts: Facts) -> str:
    scenario = facts.scenario
    size = scenario.strategy.clients_per_round
    drawn = f"{count(size)} sites sampled by seed ({scenario.strategy.sampling})" if size else "All sites"
    return f"{drawn} in each round. {sentences.failures(facts)}"


QUESTIONS: Final[Mapping[str, Mapping[str, Fact]]] = {
    "GDPR, article 35(7)": {
        "(a) What is processed, and for what purpose?": sentences.purpose_of_run,
        "(a) Whose data, and how much?": sentences.data_of_run,
        "(a) Where are the data, and who receives what?": sentences.where_rows_are,
        "(a) What does a site send?": sentences.what_left,
        "(a) How long are the data kept?": _not_recorded(
            "a run folder contains no rows; shoal does not know how long the sites keep theirs"
        ),
        "(b) Is the processing necessary: what would be achieved without it?": _alternatives,
        "(b) Is it proportionate: how is data minimised?": sentences.disclosure_rule,
        "(c) What are the risks to the people behind the rows?": _risks,
        "(c) What did attacks on the model find?": sentences.attacks,
        "(d) Which measures: differential privacy?": sentences.privacy,
        "(d) Which measures: secure aggregation?": sentences.secure_aggregation,
        "(d) Which measures: protection in transit?": sentences.transmission,
        "(d) How is the processing documented?": sentences.audit,
    },
    "HIPAA (45 CFR 164)": {
        "164.502(b) Minimum necessary: what is disclosed?": sentences.disclosure_rule,
        "164.312(b) Audit controls: which activity is recorded?": sentences.audit,
        "164.312(c) Integrity: how are changes to messages detected?": sentences.integrity,
        "164.312(d) Authentication of the participants?": sentences.authentication,
        "164.312(e) Transmission security?": sentences.transmission,
        "164.514 De-identification?": lambda facts: (
            "Not claimed: neither of the two methods was applied. Statistics and weights are derived from "
            f"rows. {sentences.privacy(facts)}"
        ),
    },
    "SR 11-7 (model risk)": {
        "Development: purpose and design?": sentences.purpose_of_run,
        "Development: data and their quality?": sentences.data_of_run,
        "Development: which sites took part, and what failed?": _selection,
        "Development: is it reproducible?": sentences.environment,
        "Validation: outcomes analysis?": sentences.results,
        "Validation: how was it tested?": sentences.testing,
        "Validation: benchmarks and alternatives?": _alternatives,
        "Validation: by whom, independently?": _not_recorded("a run includes no independent review"),
        "Limits: where is the model worst?": _limits,
        "Monitoring: how did training go?": _course,
        "Monitoring: in use?": _not_recorded("a run ends with the model; its use is unknown"),
    },
}


def assess(facts: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the questions of each framework, each with the facts that the run recorded."""
    return [
        (framework, [(question, fact(facts)) for question, fact in questions.items()])
        for framework, questions in QUESTIONS.items()
    ]


def assessment_markdown(facts: Facts) -> str:
    """Return the same as a Markdown document."""
    lines = ["# Questions of a data-protection officer and of a model-risk officer", "", DISCLAIMER]
    for framework, answers in assess(facts):
        lines += ["", f"## {framework}"]
        for question, answer in answers:
            lines += ["", f"**{question}**", "", answer]
    return document(lines)
