"""The round loop: dispatches work as the scheduler decides, aggregates, evaluates, and stops when due.

Flower's `Strategy.start` always runs all rounds and does not return the replies; this loop calls the
same public methods of the strategy one at a time, so that every stock strategy runs unmodified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from shoal.common import metrics, profiling
from shoal.common.config import Scenario
from shoal.common.errors import BudgetError, TrainingError
from shoal.common.events import ClientRow, Phase, RoundRow
from shoal.common.memory import frozen_heap
from shoal.common.messages.names import CONFIG, EXAMPLES, SERVER_STATE, TRAIN_LOSS
from shoal.common.messages.requests import LEARNING_RATE, EvaluateRequest, ExecutionMode, TrainRequest
from shoal.common.messages.schema import to_config
from shoal.common.plugins import is_users_own
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Source
from shoal.common.privacy.plan import ClientPrivacyPlan
from shoal.common.profiling import span
from shoal.common.schema import Task
from shoal.common.sites import Sites
from shoal.common.update.mean import group_size
from shoal.common.weights import with_types_of
from shoal.server.aggregation import Aggregation, PlainAggregation
from shoal.server.algorithms.algorithm import ServerAlgorithm
from shoal.server.clock import Clock, WallClock
from shoal.server.cohort_grid import CohortGrid
from shoal.server.exchange import NOTHING, Exchange, ask_enough
from shoal.server.privacy.ledger import Ledger, NoLedger
from shoal.server.sampling import cohort
from shoal.server.schedule import learning_rate
from shoal.server.schedulers.scheduler import Arrival, Dispatch, Scheduler
from shoal.server.secure.training import train_securely
from shoal.server.strategies.catalog import needs_every_update
from shoal.server.update_sum import UpdateReader, UpdateSum

OnRound = Callable[[RoundRow, Sequence[ClientRow]], None]


@dataclass(slots=True)
class LoopState:
    """The state of the loop between rounds.

    Attributes:
        arrays: the shared weights after `round`; best_arrays: those of `best_round`.
        round: the last round completed; 0 once the initial weights are evaluated, -1 before.
        score: the monitored metric at `best_round`, NaN before the first evaluation.
        stale: evaluations since the best one.
        stopped_early: whether patience or the privacy budget ran out.
        epsilon: spent so far; NaN without a guarantee.
        skipped: dispatches that were begun and never completed, because the server was killed.
    """

    arrays: ArrayRecord
    best_arrays: ArrayRecord
    round: int = -1
    best_round: int = 0
    score: float = math.nan
    stale: int = 0
    stopped_early: bool = False
    epsilon: float = math.nan
    skipped: int = 0

    @classmethod
    def at_start(cls, initial: ArrayRecord) -> LoopState:
        """Return the state before anything is evaluated."""
        return cls(arrays=initial, best_arrays=initial)


@dataclass(frozen=True, slots=True)
class Trained:
    """The training of one round.

    Attributes:
        exchange: of the dispatches that were aggregated; learning_rate: of their clients, NaN without any.
        metrics: aggregated from those of the clients.
        added: metrics that a strategy of the user's own added.
    """

    exchange: Exchange = NOTHING
    learning_rate: float = math.nan
    metrics: Mapping[str, float] = field(default_factory=dict)
    added: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestBase:
    """The fields that the requests of all rounds share.

    Attributes:
        preprocessing: fitted preprocessing, as JSON.
        frozen_hash: hash of the weights that never change; `None` if there are none.
        execution_mode: how the clients of one process train.
        class_weights: of the loss; `None` for equal ones.
        full_weight_rows: rows from which a client has full weight, under secure aggregation.
    """

    preprocessing: str
    frozen_hash: bytes | None = None
    execution_mode: ExecutionMode = "sequential"
    class_weights: tuple[float, ...] | None = None
    full_weight_rows: float | None = None


@dataclass(frozen=True, slots=True)
class RoundLoop:
    """The parts of a run that stay the same over its rounds.

    Attributes:
        grid: carries the messages; sites: the clients.
        strategy: aggregates updates; algorithm: the server half of the algorithm used with it.
        scenario: gives the number of rounds and the monitor; task: gives the monitored metric.
        base: fields of every request; reader: decodes updates.
        scheduler: decides what is dispatched and aggregated; clock: its source of time.
        on_round: called with each completed round; say: called with a line of progress.
        aggregation: turns the sum of updates into the reply that the strategy sees.
        plan: of the privacy of whole clients, `None` without; ledger: allows rounds and charges them.
        before_dispatch: called with the number of each dispatch before it is sent.
        after_round: called with the state after each round; may end the run by raising.
    """

    grid: Grid
    sites: Sites
    strategy: Strategy
    algorithm: ServerAlgorithm
    scenario: Scenario
    task: Task
    base: RequestBase
    reader: UpdateReader
    scheduler: Scheduler
    on_round: OnRound
    aggregation: Aggregation = field(default_factory=PlainAggregation)
    plan: ClientPrivacyPlan | None = None
    ledger: Ledger = field(default_factory=NoLedger)
    clock: Clock = field(default_factory=WallClock)
    source: Source = "seeded"
    say: Callable[[str], None] = lambda text: None
    before_dispatch: Callable[[int], None] = lambda number: None
    after_round: Callable[[LoopState], None] = lambda state: None

    def run(self, state: LoopState) -> LoopState:
        """Run the remaining rounds, or fewer if patience runs out, and return the final state.

        Args:
            state: where to start; updated in place.
        """
        with frozen_heap():  # Bulyan and QFedAvg collect garbage for every update
            return self._run_all(state)

    def _run_all(self, state: LoopState) -> LoopState:
        profiling.take()
        if state.round < 0:
            self._initial(state)
            self.after_round(state)
        patience = self.scenario.training.early_stopping.patience
        while state.round < self.scenario.training.rounds and not state.stopped_early:
            if not self.ledger.affords():
                self._stop_before(state)
                break
            self._round(state, state.round + 1)
            state.stopped_early = 0 < patience <= state.stale
            self.after_round(state)
        unjudged = state.best_round == 0 and math.isnan(state.score)
        if unjudged or self._guarantees:  # no choice of best weights: the last ones are kept
            state.best_arrays, state.best_round = state.arrays, state.round
        return state

    @property
    def _guarantees(self) -> bool:
        return mechanism_of(self.scenario.privacy).guarantees

    def _stop_before(self, state: LoopState) -> None:
        """Stop before the round that would exceed the privacy budget."""
        privacy = self.scenario.privacy
        text = (
            f"privacy budget: epsilon = {privacy.epsilon:g} at delta = {privacy.delta:g} does not allow "
            f"round {state.round + 1}"
        )
        if state.round == 0:
            raise BudgetError(text, hint="raise privacy.epsilon or privacy.noise_multiplier")
        self.say(f"{text}: stopping")
        state.stopped_early = True

    def _initial(self, state: LoopState) -> None:
        """Evaluate the initial weights, so that curves start where training starts."""
        measured, evaluated = self._evaluate(state, 0)
        state.round = 0
        self._judge(state, measured, 0)
        nothing = Trained(learning_rate=learning_rate(self.scenario.training, 1))
        row = self._row(state, 0, nothing, evaluated, measured)
        self.on_round(row, evaluated.rows)

    def _round(self, state: LoopState, round_number: int) -> None:
        trained = self._train(state, round_number)
        due = (
            round_number % self.scenario.server.evaluate_every == 0
            or round_number == self.scenario.training.rounds
        )
        measured, evaluated = self._evaluate(state, round_number) if due else ({}, NOTHING)
        state.round = round_number
        if measured:
            self._judge(state, measured, round_number)
        row = self._row(state, round_number, trained, evaluated, measured)
        self.on_round(row, [*trained.exchange.rows, *evaluated.rows])

    def _train(self, state: LoopState, round_number: int) -> Trained:
        """Dispatch until the scheduler has replies to aggregate, and aggregate them."""
        buffer: list[Arrival] = []
        due: Sequence[Arrival] = ()
        while not due:
            dispatch = self.scheduler.next(self.clock, round_number - 1, len(buffer))
            if dispatch is None:
                raise TrainingError("the scheduler neither dispatches nor aggregates anything")
            buffer.append(self._dispatch(state, dispatch))
            due = self.scheduler.ready(buffer)
        trained = Trained()
        for arrival in due:
            measured, added = self._aggregate(state, arrival)
            trained = Trained(
                trained.exchange.joined(arrival.exchange),
                arrival.learning_rate,
                {**trained.metrics, **measured},
                {**trained.added, **added},
            )
        return trained

    def _dispatch(self, state: LoopState, dispatch: Dispatch) -> Arrival:
        """Charge a dispatch, send it, and return its replies."""
        self.ledger.charge(dispatch.number, dispatch.clients)
        self.before_dispatch(dispatch.number)
        messages = self._requests(state, dispatch)
        if self.scenario.secure.aggregation:
            return self._dispatch_securely(state, dispatch, messages)
        exchange = NOTHING
        if messages:
            what = f"round {dispatch.number}, training"
            start = state.arrays
            exchange = ask_enough(
                self.grid,
                self.sites,
                messages,
                "train",
                dispatch.number,
                self.scenario,
                what,
                say=self.say,
                usable=lambda content: self.reader.check(content, start, self.algorithm.extra_like()),
            )
        return self._arrived(state, dispatch, exchange, messages)

    def _dispatch_securely(
        self, state: LoopState, dispatch: Dispatch, messages: Sequence[Message]
    ) -> Arrival:
        done = train_securely(
            self.grid,
            self.sites,
            self.scenario,
            dispatch.clients,
            dispatch.number,
            messages[0].content,  # the same for all: strategies that need single updates are refused
            clip_norm=self.aggregation.clip_norm(),
            plan=self.plan,
        )
        rows = [replace(row, round=dispatch.base_version + 1) for row in done.exchange.rows]
        exchange = replace(done.exchange, rows=rows)
        return replace(self._arrived(state, dispatch, exchange, messages), total=done.sum)

    def _arrived(
        self, state: LoopState, dispatch: Dispatch, exchange: Exchange, messages: Sequence[Message]
    ) -> Arrival:
        self.ledger.hear(exchange.rows)
        state.epsilon = self.ledger.epsilon
        return Arrival(dispatch, state.arrays, exchange, self.clock.now(), _rate(messages))

    def _requests(self, state: LoopState, dispatch: Dispatch) -> list[Message]:
        """Return the strategy's requests to a cohort."""
        if not dispatch.clients:
            return []
        view = CohortGrid(self.grid, self.sites.nodes(dispatch.clients))
        request = TrainRequest(
            weights=state.arrays,
            frozen_hash=self.base.frozen_hash,
            preprocessing=self.base.preprocessing,
            round_number=dispatch.number,
            learning_rate=learning_rate(self.scenario.training, dispatch.base_version + 1),
            execution_mode=self.base.execution_mode,
            reduce=self._takes_mean,
            class_weights=self.base.class_weights,
            clip_norm=self.aggregation.clip_norm(),
            full_weight_rows=self.base.full_weight_rows,
        )
        # A copy: some strategies (QFedAvg) modify the record that they are given.
        messages = self.strategy.configure_train(
            dispatch.number, state.arrays.copy(), to_config(request), view
        )
        return _with_server_state(list(messages), self.algorithm.request())

    def _aggregate(
        self, state: LoopState, arrival: Arrival
    ) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Let the strategy make the next model from the replies; return its metrics, and those it added."""
        round_number, replies, total = arrival.dispatch.number, [], arrival.total
        with span("aggregate"):
            if total is None and self._takes_mean:
                total = self._sum(arrival)
                total = None if total is None else self.aggregation.noised(round_number, total)
            if total is not None:
                replies = [self.aggregation.reply(total, arrival.start)]
                share = arrival.exchange.answered / self.sites.count
                self.algorithm.aggregate(total.extra, share)
            elif not self._takes_mean:
                replies = [self.reader.as_weights(r, arrival.start) for r in arrival.exchange.accepted]
            if not replies:  # no clients were sampled
                return {}, {}
            arrays, aggregated = self.strategy.aggregate_train(round_number, replies)
        if arrays is None:
            raise TrainingError(
                f"round {round_number}: {self.scenario.strategy.name} returned no weights; "
                f"updates: {len(replies)}",
                hint="some strategies need more clients in a round; see run.log",
            )
        state.arrays = with_types_of(arrays, state.arrays)
        rows = sum(row.examples for row in arrival.exchange.rows if not row.error)
        found = _numbers(aggregated)
        return {**found, EXAMPLES: rows if total is None else total.examples}, self._added(found, replies)

    def _added(self, aggregated: Mapping[str, float], replies: Sequence[Message]) -> dict[str, float]:
        """Return the metrics that a strategy of the user's own added to those that clients sent."""
        if not is_users_own(self.scenario.strategy.name):
            return {}
        records = [record for reply in replies for record in reply.content.metric_records.values()]
        sent = {name for record in records for name in record}
        return {name: value for name, value in aggregated.items() if name not in sent}

    def _sum(self, arrival: Arrival) -> UpdateSum | None:
        """Add the replies up; `None` if no clients were sampled and the sum needs no noise."""
        accepted, clients = arrival.exchange.accepted, arrival.dispatch.clients
        if not accepted and not mechanism_of(self.scenario.privacy).server_noise:
            return None
        stacked = self.base.execution_mode == "stacked"
        size = self.scenario.resources.clients_per_chunk or group_size(max(1, len(clients)), stacked=stacked)
        return self.reader.total(accepted, arrival.start, clients, size)

    def _evaluate(self, state: LoopState, round_number: int) -> tuple[Mapping[str, float], Exchange]:
        scenario = self.scenario
        if scenario.data.validation_fraction == 0:
            return {}, NOTHING
        size = scenario.strategy.evaluate_clients
        clients = cohort(scenario.seed, round_number, self.sites.count, size, "evaluation")
        view = CohortGrid(self.grid, self.sites.nodes(clients))
        request = EvaluateRequest(
            weights=state.arrays,
            frozen_hash=self.base.frozen_hash,
            preprocessing=self.base.preprocessing,
            round_number=round_number,
            execution_mode=self.base.execution_mode,
            reduce=self._takes_mean,
        )
        messages = self.strategy.configure_evaluate(
            round_number, state.arrays.copy(), to_config(request), view
        )
        exchange = self._ask(messages, "evaluate", round_number, f"round {round_number}, evaluation")
        measured = _numbers(self.strategy.aggregate_evaluate(round_number, exchange.accepted))
        names = scenario.training.metrics or metrics.default_metrics(self.task)
        kept = {name: measured[name] for name in names if name in measured}
        return {**kept, **self._added(measured, exchange.accepted)}, exchange

    def _ask(self, messages: Iterable[Message], phase: Phase, round_number: int, what: str) -> Exchange:
        return ask_enough(
            self.grid, self.sites, messages, phase, round_number, self.scenario, what, say=self.say
        )

    @property
    def _takes_mean(self) -> bool:
        """Whether the strategy only needs the mean of updates, so that a process may answer with one."""
        return not needs_every_update(self.scenario.strategy)

    @property
    def _one_process(self) -> bool:
        resources = self.scenario.resources
        return resources.backend == "serial" and resources.transport == "direct"

    def _judge(self, state: LoopState, measured: Mapping[str, float], round_number: int) -> None:
        """Keep the weights if they are the best so far; count evaluations without improvement.

        Under a privacy guarantee the last weights are kept: choosing by metrics would cost extra privacy.
        """
        monitor = metrics.monitored(self.scenario.training, self.task)
        score = measured.get(monitor, math.nan)
        if self._guarantees:
            state.best_arrays, state.best_round, state.score = state.arrays, round_number, score
            return
        delta = self.scenario.training.early_stopping.min_delta
        if math.isnan(score):
            return
        if math.isnan(state.score) or metrics.is_better(monitor, score, state.score, delta):
            state.best_arrays, state.best_round, state.score = state.arrays, round_number, score
            state.stale = 0
        else:
            state.stale += 1

    def _row(
        self,
        state: LoopState,
        round_number: int,
        trained: Trained,
        evaluated: Exchange,
        measured: Mapping[str, float],
    ) -> RoundRow:
        asked = trained.exchange
        succeeded = [row for row in asked.rows if not row.error]
        phases = profiling.take()
        judged = self._guarantees or not math.isnan(state.score)
        return RoundRow(
            round=round_number,
            cohort=len(asked.rows),
            succeeded=len(succeeded),
            examples=int(trained.metrics.get(EXAMPLES, 0)),
            learning_rate=trained.learning_rate,
            train_loss=trained.metrics.get(TRAIN_LOSS, math.nan),
            metrics={**measured, **trained.added},
            best=bool(measured) and state.best_round == round_number and judged,
            bytes_up=asked.bytes_up + evaluated.bytes_up,
            bytes_down=asked.bytes_down + evaluated.bytes_down,
            bytes_moved=0 if self._one_process else asked.bytes_moved + evaluated.bytes_moved,
            seconds=sum(phases.values()),
            phases=phases,
            epsilon=state.epsilon,
        )


def _with_server_state(messages: list[Message], state: ArrayRecord | None) -> list[Message]:
    """Add the algorithm's arrays to the strategy's requests; requests that share a content still share it."""
    if state is not None:
        for message in messages:
            message.content[SERVER_STATE] = state
    return messages


def _rate(messages: Sequence[Message]) -> float:
    """Return the learning rate of requests, which a strategy may have changed; NaN if they have none."""
    record = messages[0].content.config_records.get(CONFIG) if messages else None
    return _numbers(record).get(LEARNING_RATE, math.nan)


def _numbers(record: Mapping[str, object] | None) -> dict[str, float]:
    return {k: float(v) for k, v in (record or {}).items() if isinstance(v, int | float)}
