"""Which questions a site has agreed to answer, by its own scenario, and how many of each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from shoal.clients.kernel.account import TRAINING
from shoal.common.config import Scenario
from shoal.common.messages import table
from shoal.common.messages.requests import SecureVectorRequest, SumsRequest
from shoal.common.messages.table import MessageType
from shoal.common.preprocessing.sums.names import ATTEMPTS
from shoal.common.preprocessing.sums.noise import is_asked_for_sums

_MORE: Final = 2  # questions of a kind beyond the plan, at least: for a server that was killed and asks anew
_PASSES: Final = 3 + ATTEMPTS  # numbers, moments and counts once; tables of names may be unreadable


@dataclass(frozen=True, slots=True)
class Question:
    """A question that uses the site's rows.

    Attributes:
        family: the kind of question, for counting; stage: the question within a run, e.g. "train 3".
        once: whether a second, different answer would reveal more than both alone, as with masked inputs.
    """

    family: str
    stage: str
    once: bool = False


def question_of(kind: MessageType, request: Any) -> Question | None:
    """Return the question that a request asks; `None` if its answer does not depend on the rows."""
    if kind in (table.TRAIN, table.SECURE_TRAIN):
        secure = kind is table.SECURE_TRAIN
        number = request.secure_round if secure else request.round_number
        return Question(TRAINING, f"{TRAINING} {number}", secure)
    if kind is table.EVALUATE:
        return Question("evaluate", f"evaluate {request.round_number}")
    if isinstance(request, SumsRequest):
        attempt = max(request.attempts or (0,))
        more = f" {attempt}" if attempt else ""
        return Question("sums", f"sums {request.pass_name}{more}", isinstance(request, SecureVectorRequest))
    if kind in (table.SECURE_KEYS, table.SECURE_SHARES, table.SECURE_UNMASK):
        return None
    return Question(kind.site_name or kind.name, kind.site_name or kind.name)


def refusal(scenario: Scenario, kind: MessageType, question: Question) -> str:
    """Return why a question was never agreed; "" if it was."""
    secure, sums = scenario.secure.aggregation, is_asked_for_sums(scenario)
    masked = kind in (table.SECURE_TRAIN, table.SECURE_VECTOR)
    if question.family in (TRAINING, "sums", "statistics") and masked != secure:
        return f"secure.aggregation is {str(secure).lower()} in this site's scenario"
    if question.family == "statistics" and sums:
        return "this site's scenario asks for sums of statistics, not for its own"
    if question.family == "sums" and not sums:
        return "this site's scenario does not use sums of statistics"
    if question.family == "local" and not scenario.output.compare:
        return "output.compare is false in this site's scenario"
    if question.family == "evaluate" and not scenario.data.validation_fraction:
        return "data.validation_fraction is 0 in this site's scenario"
    if not _agreed(scenario, question.family):
        return "no real site answers it"
    return ""


def most(scenario: Scenario, family: str) -> int:
    """Return how many different questions of a kind a site answers in a run."""
    agreed = _agreed(scenario, family)
    return agreed + max(_MORE, agreed // 10)


def _agreed(scenario: Scenario, family: str) -> int:
    rounds, every = scenario.training.rounds, scenario.server.evaluate_every
    return {
        TRAINING: rounds,
        "evaluate": 1 + -(-rounds // every),  # before the first round, then every few and after the last
        "statistics": 1,
        "sums": _PASSES,
        "test": 1,
        "local": 1,
    }.get(family, 0)
