"""Turns the sum of clients' updates into the reply that the strategy sees.

A strategy that takes the mean of updates sees one reply, the start weights plus that mean, whatever the
transport. With privacy.unit = "client" it is the private mean, so whatever the strategy does with it costs
no further privacy. A strategy that needs single updates sees every reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from shoal.common.arrays import view
from shoal.common.config import Scenario
from shoal.common.errors import TrainingError
from shoal.common.flower_shim import number_message
from shoal.common.messages import table
from shoal.common.messages.names import ARRAYS, EXAMPLES, METRICS_RECORD, TRAIN_LOSS
from shoal.common.messages.replies import metric_record
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Source, randomness, with_noise
from shoal.common.privacy.plan import ClientPrivacyPlan, central_noise
from shoal.common.sites import FIRST_NODE_ID
from shoal.common.weights import weights_to_record
from shoal.server.update_sum import UpdateSum

_CLIP_RATE: Final = 0.2  # learning rate of adaptive clipping; the value used throughout its paper


class Aggregation(Protocol):
    """Turns a sum of updates into the reply that the strategy sees."""

    def clip_norm(self) -> float | None:
        """Return the norm that clients must clip to; `None` to use the scenario's."""
        ...

    def noised(self, dispatch: int, total: UpdateSum) -> UpdateSum:
        """Add the server's noise to a sum in the clear; `dispatch`: number that keys the noise."""
        ...

    def reply(self, total: UpdateSum, start: ArrayRecord) -> Message:
        """Return the reply that the strategy sees, from a sum that contains its noise."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        ...


class PlainAggregation:
    """The weighted mean."""

    def clip_norm(self) -> float | None:
        """Return `None`: the scenario's norm holds."""
        return None

    def noised(self, dispatch: int, total: UpdateSum) -> UpdateSum:
        """Return the sum unchanged."""
        return total

    def reply(self, total: UpdateSum, start: ArrayRecord) -> Message:
        """Return the start plus the weighted mean.

        Raises:
            TrainingError: the clients' weights sum to zero or less.
        """
        if total.weight <= 0:
            raise TrainingError("the clients' weights sum to zero, so their updates have no mean")
        return _as_reply(_moved(start, total.updates, total.weight), total)

    def state(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class PrivateMean:
    """Central differential privacy: a clipped sum with noise, divided by a constant fixed in advance.

    Each update is clipped to L2 norm C at the client and has a weight w in [0, 1]. The server releases
    (Σ w u + N(0, (z C)² I)) / cohort, where cohort is the expected number of clients. Adding or removing one
    client changes the sum by at most C, and the denominator not at all, whatever the clients' sizes and
    however many failed to answer: "fixed-denominator estimator", McMahan, Ramage, Talwar, Zhang: Learning
    Differentially Private Recurrent Language Models, ICLR 2018, section 3.

    With adaptive clipping, C tracks a quantile of the norms, from a noisy count of the updates within C:
    Andrew, Thakkar, McMahan, Ramaswamy, NeurIPS 2021.

    Deviations: weights are rows / full_weight_rows, at most 1, or 1 for all; the sum of weights is not
    estimated, so with unequal clients a step is smaller by the factor of their mean weight.
    """

    def __init__(self, scenario: Scenario, plan: ClientPrivacyPlan, clients: int, source: Source) -> None:
        """Set the clipping norm and the noise of a run.

        Args:
            scenario, plan: of the run; clients: in the federation; source: of the noise.
        """
        self._scenario, self._plan, self._clients, self._source = scenario, plan, clients, source
        self._cohort = plan.share * clients
        self._privacy = scenario.privacy
        self._clip_norm = scenario.privacy.clip_norm

    def clip_norm(self) -> float | None:
        """Return the clipping norm of the round."""
        return self._clip_norm

    def noised(self, dispatch: int, total: UpdateSum) -> UpdateSum:
        """Add Gaussian noise to every value of the sum, and to the count of updates within the norm."""
        draws = randomness(self._source, self._scenario.seed, "server-noise", dispatch=dispatch)
        noise = central_noise(self._scenario, self._plan, self._clients, self._clip_norm)
        noisy = [
            with_noise(update.reshape(-1), noise.update, draws).reshape(update.shape)
            for update in total.updates
        ]
        within = total.within + float(draws.normal(1)[0]) * noise.within
        return replace(total, updates=noisy, within=within)

    def reply(self, total: UpdateSum, start: ArrayRecord) -> Message:
        """Return the start plus the noisy sum over the cohort; adapts the clipping norm."""
        moved = _moved(start, total.updates, self._cohort)
        if self._privacy.clipping == "adaptive":
            self._adapt(total.within)
        return _as_reply(moved, total)

    def _adapt(self, within: float) -> None:
        """Move the clipping norm towards the quantile, by a noisy count that one client changes by 1/2."""
        share = min(max(within / self._cohort + 0.5, 0.0), 1.0)
        self._clip_norm *= math.exp(-_CLIP_RATE * (share - self._privacy.target_quantile))

    def state(self) -> dict[str, Any]:
        """Return the clipping norm."""
        return {"clip_norm": self._clip_norm}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the clipping norm."""
        self._clip_norm = float(state["clip_norm"])


def make_aggregation(
    scenario: Scenario, plan: ClientPrivacyPlan | None, clients: int, source: Source
) -> Aggregation:
    """Return the aggregation of a scenario.

    Args:
        scenario: of the run; plan: for units "client" and "local"; clients: in the federation.
        source: of the noise.
    """
    if plan is not None and mechanism_of(scenario.privacy).server_noise:
        return PrivateMean(scenario, plan, clients, source)
    return PlainAggregation()


def _moved(start: ArrayRecord, updates: Sequence[NDArray[np.float64]], divisor: float) -> list[NDArray[Any]]:
    """Return the start plus updates / divisor; integer weights have no meaningful update and stay."""
    before = [view(array) for array in start.values()]
    return [
        (w + u / divisor).astype(w.dtype) if np.issubdtype(w.dtype, np.floating) else w
        for w, u in zip(before, updates, strict=True)
    ]


def _as_reply(weights: Sequence[NDArray[Any]], total: UpdateSum) -> Message:
    """Return the weights as one reply, with the totals of all clients."""
    asked = Message(RecordDict(), FIRST_NODE_ID, table.TRAIN.name)
    number_message(asked)
    numbers = {EXAMPLES: max(total.examples, 1.0), TRAIN_LOSS: total.loss}
    content = RecordDict({ARRAYS: weights_to_record(weights), METRICS_RECORD: metric_record(numbers)})
    return Message(content, reply_to=asked)
