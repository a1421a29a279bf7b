"""The Flower `ServerApp`: preprocessing, the initial model, rounds, the final test.

The same app runs over any Grid: in process, on Ray workers, or over a network.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from shoal.common.config import Scenario
from shoal.common.events import ClientRow, Observer, RoundRow, SiteRow
from shoal.common.messages.names import SECURE_SESSION
from shoal.common.messages.requests import ExecutionMode
from shoal.common.preprocessing.sums.noise import protection
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Source
from shoal.common.privacy.plan import ClientPrivacyPlan, make_plan
from shoal.common.schema import Schema
from shoal.common.sites import Sites
from shoal.common.update.codecs import codec_of
from shoal.common.weights import record_to_weights
from shoal.server import strategies
from shoal.server.aggregation import Aggregation, make_aggregation
from shoal.server.algorithms import server_algorithm
from shoal.server.algorithms.algorithm import ServerAlgorithm
from shoal.server.checkpoint import KEPT, Checkpoints
from shoal.server.final_test import FinalTest
from shoal.server.frozen import resending
from shoal.server.preprocessing.collect import FittedPreprocessing
from shoal.server.privacy.ledger import make_ledger
from shoal.server.privacy.statement import guarantee_of
from shoal.server.rounds import LoopState, RoundLoop
from shoal.server.schedulers.sync import SyncScheduler
from shoal.server.start import RunStart, StartMaker
from shoal.server.strategies.state import left_out_of, restore, state_of
from shoal.server.update_sum import UpdateReader


class KeepsClientStates(Protocol):
    """A store of client states on the clients' behalf; checkpoints refer to a moment in its history."""

    def mark(self) -> Mapping[str, Any]:
        """Make all states durable; return a reference for `restore`, to be stored in a checkpoint."""
        ...

    def restore(self, mark: Mapping[str, Any]) -> None:
        """Return to the states of a mark."""
        ...

    def release(self, mark: Mapping[str, Any]) -> None:
        """Allow the states of earlier marks to be discarded."""
        ...


@dataclass(frozen=True, slots=True)
class Federation:
    """What the server knows about the federation before its first request.

    Attributes:
        scenario: the configuration; schema: the columns of a row.
        sites: the clients.
        pooled_node: node that answers `train.pooled`, in a simulation with `--compare`; else `None`.
        source: of noise and cohorts; "system" where clients are real, so that nobody can predict them.
    """

    scenario: Scenario
    schema: Schema
    sites: Sites
    pooled_node: int | None = None
    source: Source = "seeded"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run.

    Attributes:
        start: what training started from; progress: the final state of the loop; sites: the final test.
        privacy: the guarantee; `None` without one.
    """

    start: RunStart
    progress: LoopState
    sites: Sequence[SiteRow]
    privacy: Mapping[str, object] | None = None

    @property
    def fitted(self) -> FittedPreprocessing:
        """The fitted preprocessing."""
        return self.start.fitted


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks of the server.

    Attributes:
        observers: receive every round, message and final test.
        on_fitted: called with the preprocessing, before the first round.
        on_execution_mode: called with the execution mode, where the scenario leaves it to autotune.
        checkpoints: store the state after rounds, for resuming; `None` for none.
        ledger: file of the privacy ledger; `None` keeps it in memory.
        stop: called after each round with whether more rounds follow; returns whether to interrupt the run.
        enough: called after each round; returns whether it was the last one wanted. The run then ends as if
            patience had run out, with the final test and the models.
    """

    observers: Sequence[Observer]
    on_fitted: Callable[[FittedPreprocessing], None]
    on_execution_mode: Callable[[ExecutionMode], None] = lambda mode: None
    checkpoints: Checkpoints | None = None
    ledger: Path | None = None
    stop: Callable[[bool], bool] = lambda more: False
    enough: Callable[[], bool] = lambda: False


def make_server_app(
    federation: Federation,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    contexts: MutableMapping[int, RecordDict] | None = None,
    states: KeepsClientStates | None = None,
) -> ServerApp:
    """Return the ServerApp of a run.

    Args:
        federation: the clients and the scenario; hooks: callbacks.
        deliver: called with the outcome.
        contexts: node id → `Context.state`, where the Grid keeps it for the clients; part of a checkpoint.
        states: the store of algorithm states, where the Grid keeps them for the clients; `None` where clients
            keep their own.
    """
    app = ServerApp()

    def main(grid: Grid, context: Context) -> None:
        deliver(_Server(federation, hooks, grid, {} if contexts is None else contexts, states).run())

    app.main()(main)
    return app


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts that have state between rounds."""

    strategy: Strategy
    aggregation: Aggregation
    algorithm: ServerAlgorithm


class _Server:
    def __init__(
        self,
        federation: Federation,
        hooks: Hooks,
        grid: Grid,
        contexts: MutableMapping[int, RecordDict],
        states: KeepsClientStates | None,
    ) -> None:
        self.federation = federation
        self.scenario = federation.scenario
        self.sites = federation.sites
        self.hooks = hooks
        self.grid = grid
        self.contexts = contexts
        self.states = states
        self.marks: deque[Mapping[str, Any]] = deque(maxlen=KEPT)  # of the checkpoints kept

    def run(self) -> Outcome:
        federation, plan = self.federation, self.plan()
        found = self.checkpoint()
        start = self.prepare() if found is None else RunStart.of(found[0])
        grid = resending(self.grid, start.frozen)
        parts = self.parts(start, plan)
        progress = LoopState.at_start(start.initial) if found is None else self.resume(parts, found[1])
        if found is None:
            self.save_start(start, parts.strategy)
        ledger = make_ledger(self.scenario, plan, self.hooks.ledger, federation.source, progress.epsilon)
        loop = RoundLoop(
            grid=grid,
            sites=self.sites,
            strategy=parts.strategy,
            algorithm=parts.algorithm,
            scenario=self.scenario,
            task=federation.schema.task,
            base=start.base,
            reader=UpdateReader(codec_of(self.scenario.update), self.sites),
            scheduler=SyncScheduler(self.scenario, self.sites.count, federation.source, progress.skipped),
            on_round=self.report_round,
            aggregation=parts.aggregation,
            plan=plan,
            ledger=ledger,
            source=federation.source,
            say=self.say,
            before_dispatch=self.before_dispatch,
            after_round=lambda progress: self.after_round(progress, parts),
        )
        progress = loop.run(progress)
        tested = FinalTest(grid, self.sites, self.scenario, start, federation.pooled_node, self.say).run(
            progress.best_arrays,
            judged=not (math.isnan(progress.score) or mechanism_of(self.scenario.privacy).guarantees),
        )
        for observer in self.hooks.observers:
            observer.on_sites(tested)
        guarantee = guarantee_of(self.scenario, plan, progress.epsilon, federation.source, ledger)
        return Outcome(start, progress, tested, guarantee)

    def plan(self) -> ClientPrivacyPlan | None:
        """Return the plan of client-level privacy; `None` where whole clients have no guarantee."""
        if not mechanism_of(self.scenario.privacy).whole_clients:
            return None
        charges = protection(self.federation.schema, self.scenario).charges
        plan = make_plan(self.scenario, self.sites.count, charges)
        rounds = self.scenario.training.rounds
        self.say(f"privacy: ε {plan.epsilon(rounds):.3g} for {rounds} rounds")
        return plan

    @property
    def _never_repeats(self) -> bool:
        """Whether real sites give a masked input to each dispatch once: two sums with it would reveal it."""
        return self.scenario.secure.aggregation and self.federation.source == "system"

    def before_dispatch(self, number: int) -> None:
        if self.hooks.checkpoints is not None and self._never_repeats:
            self.hooks.checkpoints.begin(number)

    def parts(self, start: RunStart, plan: ClientPrivacyPlan | None) -> _Parts:
        scenario, source = self.scenario, self.federation.source
        size = scenario.strategy.clients_per_round or self.sites.count
        kinds = [start.spec.roles[k] for k in start.spec.shared]
        shared = zip(kinds, record_to_weights(start.initial), strict=True)
        trainable = [w for kind, w in shared if kind == "trainable"]
        return _Parts(
            strategies.make(scenario.strategy, size, scenario.training.learning_rate),
            make_aggregation(scenario, plan, self.sites.count, source),
            server_algorithm(scenario.strategy.name, trainable),
        )

    def prepare(self) -> RunStart:
        """Do all work before the first round."""
        return StartMaker(
            self.grid,
            self.sites,
            self.scenario,
            self.federation.schema,
            self.federation.source,
            self.say,
            self.hooks.on_fitted,
            self.hooks.on_execution_mode,
        ).make()

    def save_start(self, start: RunStart, strategy: Strategy) -> None:
        if self.hooks.checkpoints is None:
            return
        self.hooks.checkpoints.save_start(start.state())
        left_out = left_out_of(strategy)
        if left_out:
            self.say(
                f"checkpoints omit {', '.join(left_out)} of {self.scenario.strategy.name}; if these "
                "change between rounds, give the strategy state_dict() and load_state_dict()"
            )

    def checkpoint(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Return the newest checkpoint; `None` if there is none."""
        checkpoints = self.hooks.checkpoints
        found = None if checkpoints is None else checkpoints.load()
        if checkpoints is not None and found is not None:
            for refused in checkpoints.refused:
                self.say(f"checkpoint refused: {refused}")
        return found

    def resume(self, parts: _Parts, state: Mapping[str, Any]) -> LoopState:
        """Restore every part from a checkpoint, and return its loop state."""
        restore(parts.strategy, state["strategy"])
        parts.aggregation.restore(state["aggregation"])
        parts.algorithm.restore(state["algorithm"])
        self.contexts.update(state["clients"])
        if self.states is not None:
            self.states.restore(state["client_states"])
            self.marks.append(state["client_states"])
        progress = LoopState(**state["progress"])
        self.say(f"resumed after round {progress.round}")
        if self.hooks.checkpoints is not None and self._never_repeats:
            progress.skipped = max(progress.skipped, self.hooks.checkpoints.begun - progress.round)
        return progress

    def after_round(self, progress: LoopState, parts: _Parts) -> None:
        """Save a checkpoint if one is due, and stop if asked to."""
        checkpoints, every = self.hooks.checkpoints, self.scenario.output.checkpoint_every
        progress.stopped_early = progress.stopped_early or self.hooks.enough()
        over = progress.stopped_early or progress.round == self.scenario.training.rounds
        stop = self.hooks.stop(not over)
        if checkpoints is not None and every and (over or stop or progress.round % every == 0):
            mark = {} if self.states is None else self.states.mark()
            state = {
                "progress": {one.name: getattr(progress, one.name) for one in fields(progress)},
                "strategy": state_of(parts.strategy),
                "aggregation": parts.aggregation.state(),
                "algorithm": parts.algorithm.state(),
                "clients": {node: _without_secrets(state) for node, state in self.contexts.items()},
                "client_states": mark,
            }
            checkpoints.save(progress.round, state)
            self.marks.append(mark)
            if self.states is not None and len(self.marks) == KEPT:
                self.states.release(self.marks[0])
        if stop:
            raise KeyboardInterrupt

    def report_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        for observer in self.hooks.observers:
            observer.on_round(row, clients)

    def say(self, text: str) -> None:
        for observer in self.hooks.observers:
            observer.on_message(text)


def _without_secrets(state: RecordDict) -> RecordDict:
    """Return a client's state without an open session: its secrets must not be written to disk."""
    return RecordDict({name: record for name, record in state.items() if name != SECURE_SESSION})
