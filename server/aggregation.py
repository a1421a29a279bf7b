"""What becomes of clients' answers before the strategy sees them.

Usually nothing: a strategy gets every reply. With privacy.unit = "client" it gets one reply, which is the
private mean of all updates; every strategy that works on the weighted mean (FedAvg, FedAdam, …) then works on
that, and whatever it makes of it costs no more privacy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from shoal.common import records
from shoal.common.arrays import view
from shoal.common.config import Scenario
from shoal.common.errors import TrainingError
from shoal.common.flower_shim import number_message
from shoal.common.privacy.noise import SLACK, Source, randomness, with_noise
from shoal.common.privacy.plan import ClientPrivacyPlan, divided
from shoal.common.records import ARRAYS, CLIP_NORM, EXAMPLES, METRICS_RECORD, TRAIN_LOSS, WEIGHT, WITHIN
from shoal.common.secure.layout import SumNoise
from shoal.common.sites import FIRST_NODE_ID

_CLIP_RATE: Final = 0.2  # learning rate of adaptive clipping; the value that its paper uses throughout


class Aggregation(Protocol):
    """Stands between clients' replies and the strategy."""

    def config(self) -> Mapping[str, float]:
        """Return what clients are told beside everything else."""
        ...

    def replies(self, number: int, accepted: Sequence[Message], start: ArrayRecord) -> list[Message]:
        """Return the replies that the strategy sees.

        Args:
            number: the round; accepted: replies without an error.
            start: the weights that the clients started from.
        """
        ...

    def noise(self) -> SumNoise:
        """Return the noise that a secure sum must have when the server gets it."""
        ...

    def of_sum(self, total: Sum, start: ArrayRecord) -> list[Message]:
        """Return the replies that the strategy sees, of a secure sum with its noise."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned."""
        ...


class PlainAggregation:
    """Hands replies on."""

    def config(self) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def replies(self, number: int, accepted: Sequence[Message], start: ArrayRecord) -> list[Message]:
        """Return the replies as they are."""
        return list(accepted)

    def noise(self) -> SumNoise:
        """None."""
        return SumNoise()

    def of_sum(self, total: Sum, start: ArrayRecord) -> list[Message]:
        """Return one reply: the start plus the weighted mean.

        Raises:
            TrainingError: the weights of all clients together are not positive.
        """
        if total.weight <= 0:
            raise TrainingError("the clients' weights add up to nothing, so their updates have no mean")
        return [_as_reply(_moved(start, total.updates, total.weight), total)]

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What clients' updates come to.

    Attributes:
        updates: Σ weight · update, one float64 array a weight of the model; zero where it is an integer.
        weight: Σ weight, of those that were told.
        within: sum over clients of 1/2 for an update within the clipping norm, and -1/2 for one that was
            cut (adaptive clipping only).
        loss: mean training loss by weight, NaN without clients: told, not covered by the promise.
        examples: rows trained on.
    """

    updates: list[NDArray[np.float64]]
    weight: float
    within: float
    loss: float
    examples: float


def sum_of(accepted: Sequence[Message], start: ArrayRecord) -> Sum:
    """Add up replies, each the weighted mean of the updates of one or several clients."""
    updates = [np.zeros(tuple(array.shape)) for array in start.values()]
    within = weight = loss = examples = 0.0
    for reply in accepted:
        numbers = _numbers(reply)
        for total, array in zip(updates, reply.content.array_records[ARRAYS].values(), strict=True):
            total += numbers[WEIGHT] * view(array).astype(np.float64)
        within += numbers.get(WITHIN, 0.0)
        weight += numbers[WEIGHT]
        loss += numbers[WEIGHT] * numbers[TRAIN_LOSS]
        examples += numbers[EXAMPLES]
    return Sum(updates, weight, within, loss / weight if weight else math.nan, examples)


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

    def config(self) -> Mapping[str, float]:
        """Tell clients what to clip to."""
        return {CLIP_NORM: self._clip_norm}

    def replies(self, number: int, accepted: Sequence[Message], start: ArrayRecord) -> list[Message]:
        """Return one reply: the start plus the private mean of the updates."""
        total = sum_of(accepted, start)
        draws = randomness(self._source, self._seed, "server-noise", round=number)
        stddev = self.noise().update
        noisy = [
            with_noise(update.reshape(-1), stddev, draws).reshape(update.shape) for update in total.updates
        ]
        within = total.within + float(draws.normal(1)[0]) * self.noise().within
        return self.of_sum(replace(total, updates=noisy, within=within), start)

    def noise(self) -> SumNoise:
        """Return the noise of a sum; a secure sum has it from the clients, in shares."""
        return SumNoise(self._noise * self._clip_norm * SLACK, self._count_noise)

    def of_sum(self, total: Sum, start: ArrayRecord) -> list[Message]:
        """Return one reply: the start plus the noisy sum over the cohort; the clipping norm may move."""
        moved = _moved(start, total.updates, self._cohort)
        if self._privacy.clipping == "adaptive":
            self._adapt(total.within)
        return [_as_reply(moved, total)]

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
    if plan is not None and scenario.privacy.unit == "client":
        return PrivateMean(scenario, plan, clients, source)
    return PlainAggregation()


def _moved(start: ArrayRecord, updates: Sequence[NDArray[np.float64]], divisor: float) -> list[NDArray[Any]]:
    """Return the start plus updates / divisor; integers have no update to speak of and stay."""
    before = [view(array) for array in start.values()]
    return [
        (w + u / divisor).astype(w.dtype) if np.issubdtype(w.dtype, np.floating) else w
        for w, u in zip(before, updates, strict=True)
    ]


def _numbers(reply: Message) -> dict[str, float]:
    record = reply.content.metric_records[METRICS_RECORD]
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}


def _as_reply(weights: Sequence[NDArray[Any]], total: Sum) -> Message:
    """Return a reply as a client would have sent it that holds what all did."""
    asked = Message(RecordDict(), FIRST_NODE_ID, records.TRAIN)
    number_message(asked)
    numbers = {EXAMPLES: max(total.examples, 1.0), TRAIN_LOSS: total.loss}
    content = RecordDict(
        {ARRAYS: records.weights_to_record(weights), METRICS_RECORD: records.metric_record(numbers)}
    )
    return Message(content, reply_to=asked)
