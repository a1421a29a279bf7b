"""The Flower `ServerApp`: preprocessing statistics, the initial model, rounds, the final test.

The same app runs over any Grid: in process, on Ray workers, or over a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from shoal.common import records
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.events import ClientRow, Interval, Model, Observer, Phase, RoundRow, SiteRow
from shoal.common.preprocessing import PreprocessingSpec, Statistics
from shoal.common.preprocessing.sums.noise import protection
from shoal.common.privacy.noise import Source
from shoal.common.privacy.plan import ClientPrivacyPlan, make_plan
from shoal.common.records import ARRAYS, CONFIG
from shoal.common.schema import Schema
from shoal.common.sites import Sites
from shoal.server import strategies
from shoal.server.aggregation import Aggregation, make_aggregation
from shoal.server.checkpoint import Checkpoints
from shoal.server.exchange import Exchange, ask, require_replies
from shoal.server.preprocessing.collect import FittedPreprocessing, PreprocessingFitter, base_config
from shoal.server.privacy.ledger import make_ledger
from shoal.server.privacy.statement import promised
from shoal.server.rounds import BaseConfig, LoopState, RoundLoop
from shoal.server.sampling import cohort
from shoal.server.schedule import learning_rate
from shoal.server.strategies.state import left_out_of, restore, state_of

TrainingPath = Literal["stacked", "sequential"]
_LEAST_COHORT = 32  # fewer clients are spread over workers one by one rather than stacked in one


@dataclass(frozen=True, slots=True)
class Federation:
    """What the server knows of the federation before it asks anything.

    Attributes:
        scenario: the configuration; schema: what a row looks like.
        sites: the clients.
        pooled_node: node that answers `train.pooled`, in a simulation that compares; else `None`.
        source: of noise and cohorts: "system" where clients are elsewhere, so that nobody can foretell them.
    """

    scenario: Scenario
    schema: Schema
    sites: Sites
    pooled_node: int | None = None
    source: Source = "seeded"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ends with; `privacy` says what was promised, `None` if nothing was."""

    fitted: FittedPreprocessing
    progress: LoopState
    sites: Sequence[SiteRow]
    privacy: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told what while the server works.

    Attributes:
        observers: told of every round, message and final test.
        on_fitted: told of the preprocessing, before the first round.
        on_path: told which way clients train, where the scenario leaves it to a trial.
        checkpoints: take the state after rounds, and give it back; `None` for none.
        ledger: file of the privacy ledger; `None` keeps it in memory.
        stop: asked after each round whether the run shall end there; is told whether more would follow.
    """

    observers: Sequence[Observer]
    on_fitted: Callable[[FittedPreprocessing], None]
    on_path: Callable[[TrainingPath], None] = lambda path: None
    checkpoints: Checkpoints | None = None
    ledger: Path | None = None
    stop: Callable[[bool], bool] = lambda more: False


def make_server_app(
    federation: Federation,
    hooks: Hooks,
    deliver: Callable[[Outcome], None],
    client_states: MutableMapping[int, RecordDict] | None = None,
) -> ServerApp:
    """Return the ServerApp of a run.

    Args:
        federation: who takes part; hooks: who is told.
        deliver: is given the outcome.
        client_states: node id → `Context.state`, where the Grid keeps it for the clients: it is part of
            a checkpoint.
    """
    app = ServerApp()

    def main(grid: Grid, context: Context) -> None:
        deliver(_Server(federation, hooks, grid, {} if client_states is None else client_states).run())

    app.main()(main)
    return app


@dataclass(frozen=True, slots=True)
class _Start:
    """What stays the same over all rounds.

    Attributes:
        fitted: from the clients' statistics; config: goes with every message; initial: weights.
    """

    fitted: FittedPreprocessing
    config: BaseConfig
    initial: ArrayRecord

    def state(self) -> dict[str, Any]:
        """Return it for a checkpoint, without the statistics, which have done their work."""
        rows = {client: dict(counts) for client, counts in self.fitted.rows.items()}
        return {"config": dict(self.config), "initial": self.initial, "rows": rows}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> _Start:
        """Return what `state` was made of."""
        spec = PreprocessingSpec.from_json(state["config"]["preprocessing"])
        return cls(
            FittedPreprocessing(spec, Statistics(), {}, state["rows"]), state["config"], state["initial"]
        )


class _Server:
    def __init__(
        self,
        federation: Federation,
        hooks: Hooks,
        grid: Grid,
        client_states: MutableMapping[int, RecordDict],
    ) -> None:
        self.scenario = federation.scenario
        self.schema = federation.schema
        self.sites = federation.sites
        self.federation = federation
        self.hooks = hooks
        self.grid = grid
        self.client_states = client_states

    def run(self) -> Outcome:
        training = self.scenario.training
        strategy = strategies.make(self.scenario.strategy, self.cohort_size(), training.learning_rate)
        plan = self.plan()
        aggregation = make_aggregation(self.scenario, plan, self.sites.count, self.federation.source)
        start, progress = self.resume(strategy, aggregation) or self.start(strategy)
        loop = RoundLoop(
            self.grid,
            self.sites,
            strategy,
            self.scenario,
            self.schema.task,
            start.config,
            self.tell_round,
            aggregation,
            make_ledger(self.scenario, plan, self.hooks.ledger, self.federation.source, progress.epsilon),
            self.federation.source,
            self.say,
            lambda progress: self.after_round(progress, strategy, aggregation),
        )
        progress = loop.run(progress)
        tested = self.test(start, progress.best_arrays)
        for observer in self.hooks.observers:
            observer.on_sites(tested)
        promise = promised(self.scenario, plan, progress.epsilon, self.federation.source)
        return Outcome(start.fitted, progress, tested, promise)

    def plan(self) -> ClientPrivacyPlan | None:
        """Return how clients' privacy is kept; `None` where nothing is promised to whole clients."""
        if self.scenario.privacy.unit not in ("client", "local"):
            return None
        plan = make_plan(self.scenario, self.sites.count, protection(self.schema, self.scenario).charges)
        rounds = self.scenario.training.rounds
        self.say(f"privacy: ε {plan.epsilon(rounds):.3g} for {rounds} rounds")
        return plan

    def start(self, strategy: Strategy) -> tuple[_Start, LoopState]:
        """Fit the preprocessing, build the model and choose the path."""
        federation = self.federation
        fitted = PreprocessingFitter(
            self.grid, self.sites, self.scenario, self.schema, federation.source, self.say
        ).fit()
        self.hooks.on_fitted(fitted)
        config = base_config(self.scenario, self.schema, fitted)
        initial = self.initial_weights(fitted)
        start = _Start(fitted, {**config, "path": self.path(config, initial)}, initial)
        if self.hooks.checkpoints is not None:
            self.hooks.checkpoints.save_start(start.state())
            left_out = left_out_of(strategy)
            if left_out:
                self.say(
                    f"checkpoints leave out {', '.join(left_out)} of {self.scenario.strategy.name}; if these "
                    "change from round to round, give it state_dict() and load_state_dict()"
                )
        return start, LoopState.at_start(initial)

    def resume(self, strategy: Strategy, aggregation: Aggregation) -> tuple[_Start, LoopState] | None:
        """Return where the newest checkpoint stands, and give strategy and clients what they had there."""
        checkpoints = self.hooks.checkpoints
        found = None if checkpoints is None else checkpoints.load()
        if checkpoints is None or found is None:
            return None
        for refused in checkpoints.refused:
            self.say(f"checkpoint refused: {refused}")
        start, state = _Start.of(found[0]), found[1]
        restore(strategy, state["strategy"])
        aggregation.restore(state.get("aggregation", {}))
        self.client_states.update(state["clients"])
        progress = LoopState(**state["progress"])
        self.say(f"resumed after round {progress.round}")
        return start, progress

    def after_round(self, progress: LoopState, strategy: Strategy, aggregation: Aggregation) -> None:
        """Save a checkpoint where one is due, and leave if asked to."""
        checkpoints, every = self.hooks.checkpoints, self.scenario.output.checkpoint_every
        over = progress.stopped_early or progress.round == self.scenario.training.rounds
        stop = self.hooks.stop(not over)
        if checkpoints is not None and every and (over or stop or progress.round % every == 0):
            fields = {name: getattr(progress, name) for name in LoopState.__slots__}
            strategy_state = state_of(strategy)
            # Secrets of a client that was lost in a secure round shall not reach a disk.
            clients = {node: records.without_session(s) for node, s in self.client_states.items()}
            state = {
                "progress": fields,
                "strategy": strategy_state,
                "aggregation": aggregation.state(),
                "clients": clients,
            }
            checkpoints.save(progress.round, state)
        if stop:
            raise KeyboardInterrupt

    def tell_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        for observer in self.hooks.observers:
            observer.on_round(row, clients)

    def say(self, text: str) -> None:
        for observer in self.hooks.observers:
            observer.on_message(text)

    def cohort_size(self) -> int:
        return self.scenario.strategy.clients_per_round or self.sites.count

    def initial_weights(self, fitted: FittedPreprocessing) -> ArrayRecord:
        """Build the model once, for its seeded initial weights."""
        from shoal.common.models import build, compile_model  # TensorFlow takes seconds to import

        spec, seed = fitted.spec.input_spec, self.scenario.seed
        model = build(self.scenario.model, spec, self.schema.num_classes, seed=seed)
        compile_model(model, self.scenario.training, self.schema.task)
        self.say(f"model: {model.count_params():,} weights, input {spec.kind} {spec.shape}")
        return records.weights_to_record(model.get_weights())

    def path(self, config: BaseConfig, initial: ArrayRecord) -> TrainingPath:
        """Say whether clients train in stacks or one by one, after a trial at the first client."""
        wanted = self.scenario.resources.path
        alone = (
            self.scenario.resources.transport == "grpc"
            or self.scenario.secure.aggregation  # each client masks its own update
            # DP-SGD makes a gradient of each row: a stack of clients would hold those of all at once.
            or self.scenario.privacy.unit == "record"
            or self.cohort_size() < _LEAST_COHORT
        )
        if wanted == "sequential" or (wanted == "auto" and alone):
            return "sequential"
        asked = ConfigRecord({**config, "learning-rate": self.scenario.training.learning_rate})
        exchange = self.exchange(
            "statistics", records.TRIAL, RecordDict({ARRAYS: initial, CONFIG: asked}), [0]
        )
        require_replies(exchange, 1.0, "trial of the training path")
        reason = str(exchange.accepted[0].content.config_records[records.TRIAL_RECORD]["reason"])
        if wanted == "stacked" and reason:
            raise ConfigError(f'resources.path: "stacked" cannot be had: {reason}', hint='set it to "auto"')
        taken = exchange.rows[0].metrics
        faster = taken["stacked-seconds"] < taken["sequential-seconds"]
        found: TrainingPath = "stacked" if not reason and (faster or wanted == "stacked") else "sequential"
        self.hooks.on_path(found)
        seconds = (taken[f"{name}-seconds"] * 1e3 for name in ("stacked", "sequential"))
        self.say(
            f"training path: {found}, "
            + (reason or "{:.2g} ms a client stacked, {:.2g} one by one".format(*seconds))
        )
        return found

    def test(self, start: _Start, best: ArrayRecord) -> list[SiteRow]:
        """Test the best federated model, and the baselines if asked for, at every client."""
        size = self.scenario.strategy.evaluate_clients
        clients = [int(c) for c in cohort(self.scenario.seed, 0, self.sites.count, size, "evaluation")]
        which = "best" if self.scenario.privacy.unit == "none" else "last"
        self.say(f"test: the {which} federated model at {len(clients)} clients")
        tests: dict[Model, Exchange] = {"federated": self.tested(best, start.config, clients)}
        if self.scenario.output.compare:
            tests |= self.baselines(start.config, start.initial, clients)
        return site_rows(self.sites, clients, start.fitted, tests)

    def baselines(
        self, config: BaseConfig, initial: ArrayRecord, clients: Sequence[int]
    ) -> dict[Model, Exchange]:
        """Train each client alone, and all rows pooled where the simulation can, at once."""
        training = self.scenario.training
        rates = [learning_rate(training, r) for r in range(1, training.rounds + 1)]
        asked = RecordDict({ARRAYS: initial, CONFIG: ConfigRecord({**config, "learning-rates": rates})})
        pooled = self.federation.pooled_node
        more = "" if pooled is None else ", and their pooled rows"
        self.say(f"baselines: training {len(clients)} clients alone{more}")
        messages = [Message(asked, self.sites.node(c), records.LOCAL) for c in clients]
        if pooled is not None:
            messages.append(Message(asked, pooled, records.POOLED))
        done = ask(self.grid, self.sites, messages, "local", 0, self.scenario.resources.timeout_s)
        found: dict[Model, Exchange] = {"local": done}
        for reply in done.accepted:
            if reply.metadata.src_node_id == pooled:
                arrays = reply.content.array_records[ARRAYS]
                found["centralised"] = self.tested(arrays, config, clients)
        for row in done.rows:
            if row.error:
                self.say(f"baseline failed at {row.name}: {row.error}")
        return found

    def tested(self, arrays: ArrayRecord, config: BaseConfig, clients: Sequence[int]) -> Exchange:
        content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(dict(config))})
        return self.exchange("test", records.TEST, content, clients)

    def exchange(
        self, phase: Phase, message_type: str, content: RecordDict, clients: Sequence[int]
    ) -> Exchange:
        messages = [Message(content, self.sites.node(c), message_type) for c in clients]
        return ask(self.grid, self.sites, messages, phase, 0, self.scenario.resources.timeout_s)


def site_rows(
    sites: Sites, clients: Sequence[int], fitted: FittedPreprocessing, tests: Mapping[Model, Exchange]
) -> list[SiteRow]:
    """Return the final test of each client, whose rows are looked up in one pass over each exchange."""
    found = {model: {row.client: row for row in exchange.rows} for model, exchange in tests.items()}
    return [
        _site_row(sites, client, fitted, {model: rows[client] for model, rows in found.items()})
        for client in clients
    ]


def _site_row(
    sites: Sites, client: int, fitted: FittedPreprocessing, rows: Mapping[Model, ClientRow]
) -> SiteRow:
    numbers = rows["federated"].metrics
    counts = fitted.rows.get(client, {})
    return SiteRow(
        client=client,
        name=sites.name(client),
        train_rows=counts.get("train", -1),
        test_rows=counts.get("test", rows["federated"].examples or -1),
        positives=int(numbers.get("positives", -1)),
        tests={model: _intervals(row.metrics) for model, row in rows.items()},
    )


def _intervals(numbers: Mapping[str, float]) -> dict[str, Interval]:
    names = [n for n in numbers if not n.endswith(("-low", "-high")) and n not in ("positives", "steps")]
    return {
        n: Interval(numbers[n], numbers.get(f"{n}-low", math.nan), numbers.get(f"{n}-high", math.nan))
        for n in names
    }
