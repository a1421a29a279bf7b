"""The gate of a real site: each question is planned, counted, answered once, and stored before it leaves."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flwr.app import RecordDict

from shoal.clients.kernel.account import PopulationAccount
from shoal.clients.kernel.answers import Answers
from shoal.clients.kernel.plan import Question, most, question_of, refusal
from shoal.clients.worker import Answer, Job, Runs
from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError, MessageError
from shoal.common.messages.names import FROZEN
from shoal.common.messages.schema import parse
from shoal.common.messages.table import MESSAGES
from shoal.common.secure.digest import digest

_log = logging.getLogger("shoal.kernel")


class Gate:
    """Stands in front of a worker that serves one real site.

    Args:
        worker: runs the site's app; scenario: the site's own.
        account: of its population; answers: given in this run.
    """

    def __init__(
        self, worker: Runs, scenario: Scenario, account: PopulationAccount, answers: Answers
    ) -> None:
        self._worker = worker
        self._scenario = scenario
        self._account = account
        self._answers = answers

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Answer one job: from the record, by the worker, or with a refusal."""
        (job,) = jobs
        kind = MESSAGES.get(job.message_type)
        if kind is None:
            return self._worker.run(content, jobs)
        try:
            question = question_of(kind, parse(kind.request, content))
        except MessageError as error:
            return [_refused(job, f"MessageError: {error}")]
        if question is None:
            return self._worker.run(content, jobs)
        # A request is the same with and without the frozen weights, which it names by their hash.
        asked = digest(RecordDict({k: v for k, v in content.items() if k != FROZEN})).hex()
        try:
            known = self._answers.answered(question.stage, asked)
        except DisclosureError as error:
            return [_refused(job, f"DisclosureError: {error}")]
        if known is not None:
            _log.info("%s is asked again, and answered with the same bytes", question.stage)
            return [Answer(known, "", None, [job.node_id])]
        reason = refusal(self._scenario, kind, question) or self._answered_enough(question, asked)
        if reason:
            _log.warning("refused %s: %s", question.stage, reason)
            return [_refused(job, f"DisclosureError: {question.stage}: {reason}")]
        self._answers.begin(question.family, question.stage, asked)
        self._account.ask(f"{question.stage} {asked[:16]}")
        (answer,) = self._worker.run(content, jobs)
        if answer.content is not None and not question.once:
            self._answers.keep(question.family, question.stage, asked, answer.content)
        return [answer]

    def _answered_enough(self, question: Question, asked: str) -> str:
        """Return why a question may not be answered any more; "" if it may."""
        if question.once and self._answers.begun(question.stage):
            return "this site has given its masked input already; two sums with it would reveal it"
        if self._answers.begun(question.stage, asked):
            return ""  # begun, but never answered
        agreed = most(self._scenario, question.family)
        if self._answers.different(question.family) >= agreed:
            return f"this site has answered {agreed} different questions of this kind, all that it agreed to"
        return ""


def _refused(job: Job, reason: str) -> Answer:
    return Answer(None, reason, None, [job.node_id])
