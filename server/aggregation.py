"""What becomes of the sum of clients' updates before the strategy sees it.

A strategy that takes the mean of updates sees one reply: the start plus that mean, whatever carried the
updates. With privacy.unit = "client" it is the private mean, so whatever the strategy makes of it costs no
more privacy. A strategy that looks at single updates sees every reply.
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
from shoal.common.privacy.noise import SLACK, Source, randomness, with_noise
from shoal.common.privacy.plan import ClientPrivacyPlan, divided
from shoal.common.secure.layout import SumNoise
from shoal.common.sites import FIRST_NODE_ID
from shoal.common.weights import weights_to_record
from shoal.server.update_sum import UpdateSum

_CLIP_RATE: Final = 0.2  # learning rate of adaptive clipping; the value that its paper uses throughout


class Aggregation(Protocol):
    """Turns a sum of updates into what the strategy sees."""

    def clip_norm(self) -> float | None:
        """Return what clients are asked to clip to; `None` for what their scenario says."""
        ...

    def noised(self, number: int, total: UpdateSum) -> UpdateSum:
        """Add the server's noise to a sum in clear; `number`: of the dispatch."""
        ...

    def noise(self) -> SumNoise:
        """Return the noise that a secure sum must have when the server gets it."""
        ...

    def reply(self, total: UpdateSum, start: ArrayRecord) -> Message:
        """Return the reply that the strategy sees, of a sum with its noise."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned."""
        ...


class PlainAggregation:
    """The weighted mean."""

    def clip_norm(self) -> float | None:
        """Nothing."""
        return None

    def noised(self, number: int, total: UpdateSum) -> UpdateSum:
        """Return the sum as it is."""
        return total

    def noise(self) -> SumNoise:
        """None."""
        return SumNoise()

    def reply(self, total: UpdateSum, start: ArrayRecord) -> Message:
        """Return the start plus the weighted mean.

        Raises:
            TrainingError: the weights of all clients together are not positive.
        """
        if total.weight <= 0:
            raise TrainingError("the clients' weights add up to nothing, so their updates have no mean")
        return _as_reply(_moved(start, total.updates, total.weight), total)

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class PrivateMean:
    """Central differential privacy: a clipped sum with noise, over a number that is known beforehand.

    Each update is cut to L2 norm C at the client and weighs w in [0, 1]. The server releases
    (Σ w u + N(0, (z C)² I)) / cohort, cohort being the expected number of clients. One client more or less
    changes the sum by at most C, and the denominator not at all, whatever the clients' sizes and however
    many failed to answer: "fixed-denominator estimator", McMahan, Ramage, Talwar, Zhang: Learning
    Differentially Private Recurrent Language Models, ICLR 2018, section 3.

    With adaptive clipping C follows a quantile of the norms by a noisy count of the updates within C:
    Andrew, Thakkar, McMahan, Ramaswamy, NeurIPS 2021.

    Deviations: weights are rows / full_weight_rows up to 1, or 1 for all; the sum of weights is not
    estimated, so with unequal clients a step is shorter by their mean weight.
    """

    def __init__(self, scenario: Scenario, plan: ClientPrivacyPlan, clients: int, source: Source) -> None:
        """Prepare for a run.

        Args:
            scenario, plan: of the run; clients: in the federation; source: of the noise.
        """
        self._seed, self._source = scenario.seed, source
        self._cohort = plan.share * clients
        self._privacy = scenario.privacy
        self._clip_norm = scenario.privacy.clip_norm
        self._noise = plan.noise_multiplier
        self._count_noise = 0.0
        if scenario.privacy.clipping == "adaptive":
            split = divided(plan.noise_multiplier, self._cohort)
            self._noise, self._count_noise = split.update, split.count

    def clip_norm(self) -> float | None:
        """Return the round's clipping norm."""
        return self._clip_norm

    def noised(self, number: int, total: UpdateSum) -> UpdateSum:
        """Add Gaussian noise to every number of the sum, and to the count of updates within the norm."""
        draws = randomness(self._source, self._seed, "server-noise", dispatch=number)
        stddev = self.noise().update
        noisy = [
            with_noise(update.reshape(-1), stddev, draws).reshape(update.shape) for update in total.updates
        ]
        within = total.within + float(draws.normal(1)[0]) * self.noise().within
        return replace(total, updates=noisy, within=within)

    def noise(self) -> SumNoise:
        """Return the noise of a sum; a secure sum has it from the clients, in shares."""
        return SumNoise(self._noise * self._clip_norm * SLACK, self._count_noise)

    def reply(self, total: UpdateSum, start: ArrayRecord) -> Message:
        """Return the start plus the noisy sum over the cohort; the clipping norm may move."""
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
        """Take the clipping norm."""
        self._clip_norm = float(state["clip_norm"])


def make_aggregation(
    scenario: Scenario, plan: ClientPrivacyPlan | None, clients: int, source: Source
) -> Aggregation:
    """Return what stands between replies and the strategy.

    Args:
        scenario: of the run; plan: for units "client" and "local"; clients: in the federation.
        source: of the noise.
    """
    if plan is not None and mechanism_of(scenario.privacy).server_noise:
        return PrivateMean(scenario, plan, clients, source)
    return PlainAggregation()


def _moved(start: ArrayRecord, updates: Sequence[NDArray[np.float64]], divisor: float) -> list[NDArray[Any]]:
    """Return the start plus updates / divisor; integers have no update to speak of and stay."""
    before = [view(array) for array in start.values()]
    return [
        (w + u / divisor).astype(w.dtype) if np.issubdtype(w.dtype, np.floating) else w
        for w, u in zip(before, updates, strict=True)
    ]


def _as_reply(weights: Sequence[NDArray[Any]], total: UpdateSum) -> Message:
    """Return a reply as a client would have sent it that holds what all did."""
    asked = Message(RecordDict(), FIRST_NODE_ID, table.TRAIN.name)
    number_message(asked)
    numbers = {EXAMPLES: max(total.examples, 1.0), TRAIN_LOSS: total.loss}
    content = RecordDict({ARRAYS: weights_to_record(weights), METRICS_RECORD: metric_record(numbers)})
    return Message(content, reply_to=asked)
