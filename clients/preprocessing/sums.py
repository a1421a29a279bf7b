"""Answers requests for summed statistics: one vector per pass, with this client's part of the noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.kernel import Use
from shoal.clients.preprocessing.contribution import Contribution
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.preprocessing.sums.layout import Layout
from shoal.common.preprocessing.sums.noise import client_share, is_asked_for_sums
from shoal.common.preprocessing.sums.questions import PASS, Questions, number_of_pass
from shoal.common.privacy.accounting import Charge
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Randomness, randomness


def summand(
    own: Contribution, scenario: Scenario, question: Mapping[str, Any], source: Randomness, clients: int = 1
) -> NDArray[np.int64]:
    """Return a client's part of the requested sum.

    Args:
        own: the client's statistics; scenario: the same at server and client.
        question: the request, as `Questions` packs it.
        source: of this client's part of the noise, if clients add it.
        clients: in the session of a secure sum, which share the noise.

    Raises:
        DisclosureError: the request is not one that clients answer.
    """
    vector, layout = _answer(own, Questions(own.plan), question)
    if layout is None or not own.plan.protection.at_client:
        return vector
    return layout.noised(vector, source, client_share(clients, scenario))


def summand_of(
    runtime: ClientRuntime, client: int, question: Mapping[str, Any], clients: int = 1
) -> NDArray[np.int64]:
    """Return the part of the requested sum for one client of a process; arguments as for `summand`.

    Raises:
        DisclosureError: the request is not one that clients answer, or the scenario uses no sums.
    """
    scenario = runtime.scenario
    if not is_asked_for_sums(scenario):
        raise DisclosureError("the scenario does not use sums of statistics")
    number = number_of_pass(question)
    runtime.spend(_use(runtime, question))
    source = randomness(runtime.source, scenario.seed, "statistics-noise", dispatch=number, client=client)
    return summand(runtime.contribution(client), scenario, question, source, clients)


def _use(runtime: ClientRuntime, question: Mapping[str, Any]) -> Use:
    privacy, protection = runtime.scenario.privacy, runtime.statistics_plan.protection
    stage = f"sums {question[PASS]}"
    if not protection.noisy or question[PASS] == "names":  # names of many rows are told without noise
        return Use(stage)
    multiplier = protection.multiplier / mechanism_of(privacy).norms_apart
    return Use(stage, privacy.unit, Charge(multiplier, 1), privacy.delta, privacy.accountant)


def _answer(
    own: Contribution, questions: Questions, question: Mapping[str, Any]
) -> tuple[NDArray[np.int64], Layout | None]:
    """Return the vector, and its layout if it gets noise."""
    plan, kind = questions.plan, question[PASS]
    if kind == "numbers":
        return own.numbers(questions.read_clips(question)), plan.numbers()
    if kind == "moments":
        return own.moments(questions.read_ranges(question)), plan.moments()
    if kind == "names":
        return own.names(questions.read_heavy(question), questions.read_tables(question)), None
    if kind == "counts" and plan.protection.noisy:
        names = questions.read_names(question)
        sizes = {column: len(listed) for column, listed in names.items()}
        return own.counts(names, questions.read_clips(question)), plan.counts(sizes)
    raise DisclosureError(f'there is no pass of summed statistics named "{str(kind)[:40]}"')
