"""Facts of a run under the questions that a data-protection or a model-risk officer asks.

The questions follow article 35(7) of Regulation (EU) 2016/679 (GDPR), 45 CFR 164 (HIPAA), and SR 11-7 of the
Board of Governors of the Federal Reserve System. They are shortened, and the answers are what the run
recorded: whoever assesses has to answer them in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from shoal.simulations.report import sentences as told
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.sentences import NOT_RECORDED
from shoal.simulations.report.verdict import judge
from shoal.simulations.results.text import count

DISCLAIMER: Final = (
    "This is no legal assessment, and no claim that any rule is met. It lists what this run recorded under "
    "questions that such assessments ask, for those who have to answer them."
)

Fact = Callable[[Facts], str]


def _not_recorded(about: str) -> Fact:
    return lambda facts: f"{NOT_RECORDED}: {about}."


def _alternatives(facts: Facts) -> str:
    return " ".join([f"{judge(facts.sites, facts.metric).headline}.", told.results(facts)])


def _limits(facts: Facts) -> str:
    return " ".join(judge(facts.sites, facts.metric).sentences) or NOT_RECORDED


def _risks(facts: Facts) -> str:
    seen = told.secure_aggregation(facts)
    return f"Updates of a model can tell of the rows behind them. {seen} {told.privacy(facts)}"


def _course(facts: Facts) -> str:
    done = sum(row.round > 0 for row in facts.rounds)
    return f"The run is {facts.status} after {count(done)} rounds. {told.chosen_round(facts)}"


def _selection(facts: Facts) -> str:
    scenario = facts.scenario
    size = scenario.strategy.clients_per_round
    drawn = f"{count(size)} sites drawn by seed ({scenario.strategy.sampling})" if size else "All sites"
    return f"{drawn} in each round. {told.failures(facts)}"


QUESTIONS: Final[Mapping[str, Mapping[str, Fact]]] = {
    "GDPR, article 35(7)": {
        "(a) What is processed, and for what purpose?": told.purpose_of_run,
        "(a) Whose data, and how much?": told.data_of_run,
        "(a) Where are the data, and who receives what?": told.where_rows_are,
        "(a) What leaves a site?": told.what_left,
        "(a) How long are data kept?": _not_recorded(
            "a run folder holds no rows; how long the sites keep theirs, shoal does not know"
        ),
        "(b) Is the processing necessary: what would be reached without it?": _alternatives,
        "(b) Is it proportionate: how are data minimised?": told.disclosure_rule,
        "(c) What are the risks to the people behind the rows?": _risks,
        "(c) What have attacks on the model found?": told.attacks,
        "(d) Which measures: differential privacy?": told.privacy,
        "(d) Which measures: secure aggregation?": told.secure_aggregation,
        "(d) Which measures: protection on the way?": told.transmission,
        "(d) How is it shown what was done?": told.audit,
    },
    "HIPAA (45 CFR 164)": {
        "164.502(b) Minimum necessary: what is disclosed?": told.disclosure_rule,
        "164.312(b) Audit controls: what is recorded of activity?": told.audit,
        "164.312(c) Integrity: how is a change of what was sent noticed?": told.integrity,
        "164.312(d) Authentication of who takes part?": told.authentication,
        "164.312(e) Transmission security?": told.transmission,
        "164.514 De-identification?": lambda facts: (
            "Not claimed: neither of its two methods was applied. Statistics and weights are derived from "
            f"rows. {told.privacy(facts)}"
        ),
    },
    "SR 11-7 (model risk)": {
        "Development: purpose and design?": told.purpose_of_run,
        "Development: data and their quality?": told.data_of_run,
        "Development: which sites took part, and what failed?": _selection,
        "Development: can it be reproduced?": told.environment,
        "Validation: outcomes analysis?": told.results,
        "Validation: how was it tested?": told.testing,
        "Validation: benchmarks and alternatives?": _alternatives,
        "Validation: by whom, independently?": _not_recorded("no review is part of a run"),
        "Limits: where does the model do worst?": _limits,
        "Monitoring: how did training go?": _course,
        "Monitoring: in use?": _not_recorded("a run ends with the model; nothing is known of its use"),
    },
}


def assess(facts: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the questions of each framework, each with what the run recorded."""
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
    return "\n".join(lines) + "\n"
