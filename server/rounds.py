"""The round loop: draws cohorts, lets the strategy ask and aggregate, and knows when to stop.

Flower's `Strategy.start` always runs all rounds and keeps all replies to itself; this loop calls the
same public methods of the strategy one by one, so that every stock strategy runs unmodified.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from shoal.common import metrics, profiling, records
from shoal.common.config import Scenario
from shoal.common.errors import BudgetError, TrainingError
from shoal.common.events import ClientRow, Phase, RoundRow
from shoal.common.privacy.noise import Source
from shoal.common.profiling import span
from shoal.common.records import CLIP_NORM, EXAMPLES, TRAIN_LOSS
from shoal.common.schema import Task
from shoal.common.sites import Sites
from shoal.server.aggregation import Aggregation, PlainAggregation
from shoal.server.cohort_grid import CohortGrid
from shoal.server.exchange import Exchange, ask_enough
from shoal.server.privacy.ledger import Ledger, NoLedger
from shoal.server.sampling import cohort, train_cohort
from shoal.server.schedule import learning_rate
from shoal.server.secure.training import train_securely
from shoal.server.strategies.catalog import needs_every_update

OnRound = Callable[[RoundRow, Sequence[ClientRow]], None]
BaseConfig = Mapping[str, str | float | list[float]]


@dataclass(slots=True)
class LoopState:
    """Where the loop stands.

    Attributes:
        arrays: the weights after `round`; best_arrays: those of `best_round`.
        round: the last one that is done; 0 once the initial weights are evaluated, -1 before.
        score: the monitored metric at `best_round`, NaN before the first evaluation.
        stale: evaluations since the best one.
        stopped_early: whether patience or the privacy budget ran out.
        epsilon: spent so far; NaN where nothing is promised.
    """

    arrays: ArrayRecord
    best_arrays: ArrayRecord
    round: int = -1
    best_round: int = 0
    score: float = math.nan
    stale: int = 0
    stopped_early: bool = False
    epsilon: float = math.nan

    @classmethod
    def at_start(cls, initial: ArrayRecord) -> LoopState:
        """Return where a loop stands before anything was measured."""
        return cls(arrays=initial, best_arrays=initial)


@dataclass(frozen=True, slots=True)
class RoundLoop:
    """Everything that stays the same over the rounds of a run.

    Attributes:
        grid: carries the messages; sites: the clients behind it.
        strategy: aggregates.
        scenario: says how many rounds, which cohort, which monitor.
        task: decides the monitored metric.
        config: goes to the clients with every message, beside what a round adds.
        aggregation: stands between replies and the strategy; ledger: allows rounds and charges them.
        source: of the draw of cohorts.
        on_round: is told of every finished round; say: of a new try.
        after_round: is given where the loop stands after a round, and may end it by an exception.
    """

    grid: Grid
    sites: Sites
    strategy: Strategy
    scenario: Scenario
    task: Task
    config: BaseConfig
    on_round: OnRound
    aggregation: Aggregation = field(default_factory=PlainAggregation)
    ledger: Ledger = field(default_factory=NoLedger)
    source: Source = "seeded"
    say: Callable[[str], None] = lambda text: None
    after_round: Callable[[LoopState], None] = lambda progress: None

    def run(self, progress: LoopState) -> LoopState:
        """Run all rounds that are left, or fewer if patience runs out, and return where the loop ended.

        Args:
            progress: where to start; it is changed.
        """
        # Bulyan and QFedAvg collect garbage for every update; frozen objects need no look then.
        thaw = gc.get_freeze_count() == 0  # what somebody else has frozen stays so
        gc.collect()
        if thaw:
            gc.freeze()
        profiling.take()
        if progress.round < 0:
            self._initial(progress)
            self.after_round(progress)
        patience = self.scenario.training.early_stopping.patience
        while progress.round < self.scenario.training.rounds and not progress.stopped_early:
            if not self.ledger.affords():
                self._stop_before(progress)
                break
            self._round(progress, progress.round + 1)
            progress.stopped_early = 0 < patience <= progress.stale
            self.after_round(progress)
        unjudged = progress.best_round == 0 and math.isnan(progress.score)
        if unjudged or self.scenario.privacy.unit != "none":  # then nothing is chosen
            progress.best_arrays, progress.best_round = progress.arrays, progress.round
        if thaw:
            gc.unfreeze()
        return progress

    def _stop_before(self, progress: LoopState) -> None:
        """Stop before the round that would pass the privacy budget."""
        privacy = self.scenario.privacy
        text = (
            f"privacy budget: epsilon = {privacy.epsilon:g} at delta = {privacy.delta:g} does not allow "
            f"round {progress.round + 1}"
        )
        if progress.round == 0:
            raise BudgetError(text, hint="raise privacy.epsilon or privacy.noise_multiplier")
        self.say(f"{text}: stopping")
        progress.stopped_early = True

    def _initial(self, progress: LoopState) -> None:
        """Evaluate the initial weights, so that curves start where training starts."""
        measured, evaluated = self._evaluate(progress, 0)
        progress.round = 0
        self._judge(progress, measured, 0)
        row = self._row(progress, 0, Exchange([], []), evaluated, {TRAIN_LOSS: math.nan}, measured)
        self.on_round(row, evaluated.rows)

    def _round(self, progress: LoopState, number: int) -> None:
        trained, train_metrics = self._train(progress, number)
        due = number % self.scenario.server.evaluate_every == 0 or number == self.scenario.training.rounds
        measured, evaluated = self._evaluate(progress, number) if due else ({}, Exchange([], []))
        progress.round = number
        if measured:
            self._judge(progress, measured, number)
        row = self._row(progress, number, trained, evaluated, train_metrics, measured)
        self.on_round(row, [*trained.rows, *evaluated.rows])

    def _train(self, progress: LoopState, number: int) -> tuple[Exchange, Mapping[str, float]]:
        """Train one cohort and aggregate; returns what was exchanged and the aggregated metrics."""
        scenario, count = self.scenario, self.sites.count
        clients = train_cohort(scenario.strategy, scenario.seed, number, count, self.source)
        self.ledger.charge(number, clients)
        exchange, replies, examples = self._collect(progress, number, clients)
        self.ledger.hear(exchange.rows)
        progress.epsilon = self.ledger.epsilon
        if not replies:  # nobody was drawn
            return exchange, {}
        with span("aggregate"):
            arrays, aggregated = self.strategy.aggregate_train(number, replies)
        if arrays is None:
            raise TrainingError(
                f"round {number}: {scenario.strategy.name} gave no weights from {len(replies)} updates",
                hint="some strategies need more clients in a round; run.log has Flower's own words",
            )
        progress.arrays = records.with_types_of(arrays, progress.arrays)
        return exchange, {**_numbers(aggregated), EXAMPLES: examples}

    def _collect(
        self, progress: LoopState, number: int, clients: Sequence[int]
    ) -> tuple[Exchange, list[Message], float]:
        """Let a cohort train; return what was exchanged, what the strategy sees, and rows trained on."""
        messages = self._training(progress, number, clients)
        if self.scenario.secure.aggregation:
            content = messages[0].content  # the same for all, as no strategy of single updates is let in
            clip_norm = self.aggregation.config().get(CLIP_NORM)
            done = train_securely(
                self.grid,
                self.sites,
                self.scenario,
                clients,
                number,
                content,
                range=clip_norm,
                noise=self.aggregation.noise(),
            )
            return done.exchange, self.aggregation.of_sum(done.sum, progress.arrays), done.sum.examples
        what = f"round {number}, training"
        exchange = self._ask(messages, "train", number, what) if messages else Exchange([], [])
        with span("aggregate"):
            replies = self.aggregation.replies(number, exchange.accepted, progress.arrays)
        return exchange, replies, sum(row.examples for row in exchange.rows if not row.error)

    def _training(self, progress: LoopState, number: int, clients: Sequence[int]) -> list[Message]:
        """Return what the strategy asks of a cohort."""
        if not clients:
            return []
        view = CohortGrid(self.grid, self.sites.nodes(clients))
        asked = {"learning-rate": learning_rate(self.scenario.training, number)}
        config = ConfigRecord({**self.config, **asked, **self.aggregation.config(), "reduce": self._reduce})
        # A copy: some strategies (QFedAvg) take the record apart that they were given.
        return list(self.strategy.configure_train(number, progress.arrays.copy(), config, view))

    def _evaluate(self, progress: LoopState, number: int) -> tuple[Mapping[str, float], Exchange]:
        scenario = self.scenario
        if scenario.data.validation_fraction == 0:
            return {}, Exchange([], [])
        size = scenario.strategy.evaluate_clients
        clients = cohort(scenario.seed, number, self.sites.count, size, "evaluation")
        view = CohortGrid(self.grid, self.sites.nodes(clients))
        config = ConfigRecord({**self.config, "reduce": self._reduce})
        messages = self.strategy.configure_evaluate(number, progress.arrays.copy(), config, view)
        exchange = self._ask(messages, "evaluate", number, f"round {number}, evaluation")
        measured = _numbers(self.strategy.aggregate_evaluate(number, exchange.accepted))
        names = scenario.training.metrics or metrics.default_metrics(self.task)
        return {name: measured[name] for name in names if name in measured}, exchange

    def _ask(self, messages: Iterable[Message], phase: Phase, number: int, what: str) -> Exchange:
        return ask_enough(self.grid, self.sites, messages, phase, number, self.scenario, what, say=self.say)

    @property
    def _reduce(self) -> bool:
        """Whether a process that serves several clients may answer with their mean."""
        return not needs_every_update(self.scenario.strategy)

    def _judge(self, progress: LoopState, measured: Mapping[str, float], number: int) -> None:
        """Keep the weights if they are the best so far; count how long none were better.

        Under a promise of privacy the last ones are kept: choosing by what rows say would cost more of it.
        """
        monitor = metrics.monitored(self.scenario.training, self.task)
        score = measured.get(monitor, math.nan)
        if self.scenario.privacy.unit != "none":
            progress.best_arrays, progress.best_round, progress.score = progress.arrays, number, score
            return
        delta = self.scenario.training.early_stopping.min_delta
        if math.isnan(score):
            return
        if math.isnan(progress.score) or metrics.is_better(monitor, score, progress.score, delta):
            progress.best_arrays, progress.best_round, progress.score = progress.arrays, number, score
            progress.stale = 0
        else:
            progress.stale += 1

    def _row(
        self,
        progress: LoopState,
        number: int,
        trained: Exchange,
        evaluated: Exchange,
        train_metrics: Mapping[str, float],
        measured: Mapping[str, float],
    ) -> RoundRow:
        succeeded = [row for row in trained.rows if not row.error]
        phases = profiling.take()
        return RoundRow(
            round=number,
            cohort=len(trained.rows),
            succeeded=len(succeeded),
            examples=int(train_metrics.get(EXAMPLES, 0)),
            learning_rate=learning_rate(self.scenario.training, max(1, number)),
            train_loss=train_metrics.get(TRAIN_LOSS, math.nan),
            metrics=measured,
            best=bool(measured) and progress.best_round == number,
            bytes_up=trained.bytes_up + evaluated.bytes_up,
            bytes_down=trained.bytes_down + evaluated.bytes_down,
            seconds=sum(phases.values()),
            phases=phases,
            epsilon=progress.epsilon,
        )


def _numbers(record: Mapping[str, object] | None) -> dict[str, float]:
    return {k: float(v) for k, v in (record or {}).items() if isinstance(v, int | float)}
