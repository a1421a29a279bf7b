"""The client side of each mechanism of differential privacy: training, updates and accounting.

Everything that the guarantee depends on is computed here, from the client's own scenario.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from numpy.typing import NDArray

from shoal.clients.kernel.account import TRAINING, Use
from shoal.clients.runtime import ClientRuntime
from shoal.clients.training.local_settings import LocalTask
from shoal.clients.training.objective import LocalObjective
from shoal.clients.update.clip import Clip, norms
from shoal.clients.update.noise import GaussianNoise
from shoal.clients.update.step import Step, Updates
from shoal.common.messages.names import EPSILON, EPSILON_NEXT, WEIGHT, WITHIN
from shoal.common.messages.requests import TrainRequest
from shoal.common.origin import Origin
from shoal.common.privacy.accounting import Charge
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import SLACK
from shoal.common.privacy.record import epsilon_after, require_budget

Arrays = Sequence[NDArray[Any]]
Trained = tuple[list[NDArray[Any]], float, int]  # all weights of the model, mean loss, steps


class ClientMechanism:
    """No guarantee, and the base class: updates are clipped and noised as `[update]` says.

    Args:
        runtime: of the client's process; request: the requested round.
    """

    unit: ClassVar[str] = "none"
    stacks: ClassVar[bool] = True  # whether ordinary training of many clients at once keeps the guarantee

    def __init__(self, runtime: ClientRuntime, request: TrainRequest) -> None:
        self.runtime = runtime
        self.request = request

    @property
    def hides_from_server(self) -> bool:
        """Whether the server must not learn the training loss, or that training diverged.

        A client whose training diverges then sends an update of zero, with its noise, instead of an error.
        """
        return False

    def steps(self) -> list[Step]:
        """Return the steps applied to updates before they are encoded."""
        update = self.runtime.scenario.update
        return _steps(update.clip_norm, update.noise_stddev, self.runtime)

    def weight(self, rows: int) -> float:
        """Return the weight of an update in a mean; `rows`: training rows of the client."""
        return float(rows)

    def charge(self, origin: Origin, rows: int) -> None:
        """Charge a round to the client's account, before its rows are used.

        Raises:
            BudgetError: the budget does not allow it.
        """
        self.runtime.spend(self._use(origin, None))

    def _use(self, origin: Origin, charge: Charge | None) -> Use:
        privacy = self.runtime.scenario.privacy
        return Use(f"{TRAINING} {origin.dispatch}", self.unit, charge, privacy.delta, privacy.accountant)

    def train(
        self, weights: Arrays, task: LocalTask, origin: Origin, objective: LocalObjective | None
    ) -> Trained:
        """Train one client, starting from all weights of the model."""
        return self.runtime.trainer.train(
            weights, task.x, task.y, task.settings, task.rng, objective=objective
        )

    def clipped(self, updates: Updates) -> Sequence[float | None]:
        """Return +1/2 for each update within the clipping norm, -1/2 for others; `None` if not requested."""
        return [None] * len(updates[0])

    def extra_metrics(self, origin: Origin, rows: int, within: float | None) -> Mapping[str, float]:
        """Return the metrics reported in addition to the usual ones."""
        return {}


class CentralMechanism(ClientMechanism):
    """Unit "client": the update is clipped here; the server adds noise to the sum.

    The clipping norm may change between rounds, so the server sends it. Under secure aggregation each
    client adds its share of the noise under its mask (`clients/secure`) and keeps its own account.
    """

    unit: ClassVar[str] = "client"

    def steps(self) -> list[Step]:
        """Clip to the round's norm."""
        return [Clip(self._norm)]

    def weight(self, rows: int) -> float:
        """Return a weight in [0, 1]: rows / privacy.full_weight_rows, at most 1, or 1 for all."""
        privacy = self.runtime.scenario.privacy
        return min(rows / privacy.full_weight_rows, 1.0) if privacy.weights == "bounded" else 1.0

    @property
    def hides_from_server(self) -> bool:
        """Whether noise is added before the server sees the sum."""
        return self.runtime.scenario.secure.aggregation

    def charge(self, origin: Origin, rows: int) -> None:
        """Charge the client's account; where the server adds the noise, it keeps the budget."""
        plan = self.runtime.client_plan
        use = self._use(origin, Charge(plan.noise_multiplier, 1))
        allow = plan.require if self.hides_from_server else _any_number
        self.runtime.charge(use, origin.dispatch, allow)

    def clipped(self, updates: Updates) -> Sequence[float | None]:
        """Compare norms with the clipping norm of the round, for adaptive clipping."""
        if self.runtime.scenario.privacy.clipping == "fixed":
            return super().clipped(updates)
        return [0.5 if norm <= self._norm else -0.5 for norm in norms(updates)]

    def extra_metrics(self, origin: Origin, rows: int, within: float | None) -> Mapping[str, float]:
        """Return the weight, and the bit for adaptive clipping."""
        found = {WEIGHT: self.weight(rows)}
        return found if within is None else {**found, WITHIN: within}

    @property
    def _norm(self) -> float:
        norm = self.request.clip_norm
        return self.runtime.scenario.privacy.clip_norm if norm is None else norm


class LocalMechanism(ClientMechanism):
    """Unit "local": clipped and noised here; protects against the server too, which can change neither."""

    unit: ClassVar[str] = "local"

    @property
    def hides_from_server(self) -> bool:
        """Yes."""
        return True

    def steps(self) -> list[Step]:
        """Clip to the scenario's norm, and add the noise of the client's own plan."""
        privacy = self.runtime.scenario.privacy
        # An update can be anything of norm up to clip_norm: two of them differ by up to twice that.
        noise = 2 * self.runtime.client_plan.noise_multiplier * privacy.clip_norm * SLACK
        return _steps(privacy.clip_norm, noise, self.runtime)

    def charge(self, origin: Origin, rows: int) -> None:
        """Charge the client's account."""
        plan = self.runtime.client_plan
        use = self._use(origin, Charge(plan.noise_multiplier, 1))
        self.runtime.charge(use, origin.dispatch, plan.require)


class RecordMechanism(ClientMechanism):
    """Unit "record": DP-SGD, which hides the presence of any single row."""

    unit: ClassVar[str] = "record"
    stacks: ClassVar[bool] = False  # whatever the server requests: only `train` is private

    def charge(self, origin: Origin, rows: int) -> None:
        """Charge the client's account by the plan for its number of rows."""
        plan = self.runtime.record_plan(rows)
        use = self._use(origin, plan.charges(1)[-1])  # the last one is that of training
        self.runtime.charge(use, origin.dispatch, lambda rounds: require_budget(plan, rounds))

    def train(
        self, weights: Arrays, task: LocalTask, origin: Origin, objective: LocalObjective | None
    ) -> Trained:
        """Train with DP-SGD; the loss is NaN, since the true one would reveal rows without noise."""
        plan = self.runtime.record_plan(len(task.y))
        noise, batches = (
            origin.draws(purpose, self.runtime.source) for purpose in ("gradient-noise", "batches")
        )
        new, steps = self.runtime.private.train(
            weights, task.x, task.y, task.settings, plan, noise, batches, objective
        )
        return new, math.nan, steps

    def extra_metrics(self, origin: Origin, rows: int, within: float | None) -> Mapping[str, float]:
        """Return the epsilon spent; nothing under secure aggregation, as it reveals the number of rows."""
        if self.runtime.scenario.secure.aggregation:
            return {}
        plan, rounds = self.runtime.record_plan(rows), self.runtime.charged(origin.dispatch)
        return {EPSILON: epsilon_after(plan, rounds), EPSILON_NEXT: epsilon_after(plan, rounds + 1)}


def planned_uses(runtime: ClientRuntime, client: int) -> list[Use]:
    """Return all protected uses of a client's rows in a run in which it takes part in every round."""
    scenario = runtime.scenario
    privacy, mechanism = scenario.privacy, mechanism_of(scenario.privacy)
    if not mechanism.guarantees:
        return []
    if mechanism.per_row:
        charges = runtime.record_plan(runtime.raw(client)["train"].rows).charges(scenario.training.rounds)
    else:
        plan = runtime.client_plan
        charges = (*plan.before, Charge(plan.noise_multiplier, scenario.training.rounds))
    return [Use(TRAINING, privacy.unit, one, privacy.delta, privacy.accountant) for one in charges]


_MECHANISMS: Final[Mapping[str, type[ClientMechanism]]] = {
    one.unit: one for one in (ClientMechanism, CentralMechanism, LocalMechanism, RecordMechanism)
}


def client_mechanism(runtime: ClientRuntime, request: TrainRequest) -> ClientMechanism:
    """Return the client's side of the mechanism that its scenario names."""
    return _MECHANISMS[runtime.scenario.privacy.unit](runtime, request)


def _any_number(rounds: int) -> None:
    """Allow any number of rounds."""


def _steps(clip_norm: float | None, stddev: float, runtime: ClientRuntime) -> list[Step]:
    steps: list[Step] = [] if clip_norm is None else [Clip(clip_norm)]
    return [*steps, GaussianNoise(stddev, runtime.source)] if stddev else steps
