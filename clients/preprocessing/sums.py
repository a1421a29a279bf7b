"""Answers the server's questions for sums: one vector a pass, with this client's part of the noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.preprocessing.contribution import Contribution
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.preprocessing.sums.layout import Layout
from shoal.common.preprocessing.sums.noise import client_share, is_asked_for_sums
from shoal.common.preprocessing.sums.questions import PASS, Questions, number_of_pass
from shoal.common.privacy.noise import Randomness, randomness


def summand(
    own: Contribution, scenario: Scenario, question: Mapping[str, Any], source: Randomness
) -> NDArray[np.int64]:
    """Return what a client adds to the sum that is asked for.

    Args:
        own: what the client has to add; scenario: that both sides have.
        question: as `Questions` packs it.
        source: of this client's part of the noise, where clients add it.

    Raises:
        DisclosureError: the question is not one that is answered.
    """
    asked = Questions(own.plan, int(question["asked"]))
    vector, layout = _answer(own, asked, question)
    if layout is None or not own.plan.protection.at_client:
        return vector
    return layout.noised(vector, source, client_share(asked.asked, scenario))


def summand_of(runtime: ClientRuntime, client: int, question: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return what one of a process' clients adds to the sum that is asked for.

    Raises:
        DisclosureError: the question is not one that is answered, or the scenario asks for no sums.
    """
    scenario = runtime.scenario
    if not is_asked_for_sums(scenario):
        raise DisclosureError("the scenario asks for no sums of statistics")
    number = number_of_pass(question)
    source = randomness(runtime.source, scenario.seed, "statistics-noise", dispatch=number, client=client)
    return summand(runtime.contribution(client), scenario, question, source)


def _answer(
    own: Contribution, asked: Questions, question: Mapping[str, Any]
) -> tuple[NDArray[np.int64], Layout | None]:
    """Return the vector, and its layout where it is one that gets noise."""
    plan, kind = asked.plan, question[PASS]
    if kind == "numbers":
        return own.numbers(asked.read_clips(question)), plan.numbers()
    if kind == "moments":
        return own.moments(asked.read_ranges(question)), plan.moments()
    if kind == "names":
        return own.names(asked.read_heavy(question), asked.read_tables(question)), None
    if kind == "counts" and plan.protection.noisy:
        names = asked.read_names(question)
        sizes = {column: len(listed) for column, listed in names.items()}
        return own.counts(names, asked.read_clips(question)), plan.counts(sizes)
    raise DisclosureError(f'statistics are not summed in a pass "{str(kind)[:40]}"')
