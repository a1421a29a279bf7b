"""Before the first round: fit the preprocessing, build the model, choose the execution mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.messages import table
from shoal.common.messages.names import AUTOTUNE
from shoal.common.messages.requests import AutotuneRequest, ExecutionMode
from shoal.common.messages.schema import to_content
from shoal.common.preprocessing import PreprocessingSpec, Statistics
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Source
from shoal.common.schema import Schema
from shoal.common.sites import Sites
from shoal.common.update.spec import WeightSpec
from shoal.common.weights import weights_to_record
from shoal.server.exchange import ask, require_replies
from shoal.server.frozen import resending
from shoal.server.preprocessing.collect import FittedPreprocessing, PreprocessingFitter, class_weights
from shoal.server.rounds import RequestBase

_LEAST_COHORT = 32  # smaller cohorts are spread over workers rather than stacked in one


@dataclass(frozen=True, slots=True)
class RunStart:
    """What training starts from; constant over all rounds.

    Attributes:
        fitted: fitted preprocessing; base: fields of every request.
        spec: the roles of the weights; initial: the shared weights; frozen: those that never change.
    """

    fitted: FittedPreprocessing
    base: RequestBase
    spec: WeightSpec
    initial: ArrayRecord
    frozen: ArrayRecord

    def state(self) -> dict[str, Any]:
        """Return the start for a checkpoint, without the statistics, which are no longer needed."""
        return {
            "rows": {client: dict(counts) for client, counts in self.fitted.rows.items()},
            "base": asdict(self.base),
            "spec": asdict(self.spec),
            "initial": self.initial,
            "frozen": self.frozen,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> RunStart:
        """Return the start that `state` describes."""
        base = RequestBase(**state["base"])
        preprocessing = PreprocessingSpec.from_json(base.preprocessing)
        fitted = FittedPreprocessing(preprocessing, Statistics(), {}, state["rows"])
        return cls(fitted, base, WeightSpec(**state["spec"]), state["initial"], state["frozen"])


@dataclass(frozen=True, slots=True)
class StartMaker:
    """Prepares a run.

    Attributes:
        grid, sites: reach the clients; scenario, schema: of the run; source: of noise on statistics.
        say: called with a line for each step; on_fitted: called with the preprocessing.
        on_execution_mode: called with the mode, where the scenario leaves it to autotune.
    """

    grid: Grid
    sites: Sites
    scenario: Scenario
    schema: Schema
    source: Source
    say: Callable[[str], None]
    on_fitted: Callable[[FittedPreprocessing], None]
    on_execution_mode: Callable[[ExecutionMode], None]

    def make(self) -> RunStart:
        """Fit the preprocessing, build the model and choose the execution mode."""
        fitter = PreprocessingFitter(self.grid, self.sites, self.scenario, self.schema, self.source, self.say)
        fitted = fitter.fit()
        self.on_fitted(fitted)
        spec, weights = self._model(fitted)
        initial = weights_to_record(spec.take_shared(weights))
        frozen = weights_to_record([weights[k] for k in spec.frozen])
        base = RequestBase(
            preprocessing=fitted.spec.to_json(),
            frozen_hash=spec.frozen_hash(weights),
            class_weights=class_weights(self.scenario, self.schema, fitted),
            # No client has more rows, so weights by rows are at most 1 and keep their proportions.
            full_weight_rows=float(fitted.largest) if self.scenario.secure.aggregation else None,
        )
        mode = self._execution_mode(resending(self.grid, frozen), base, initial)
        return RunStart(fitted, replace(base, execution_mode=mode), spec, initial, frozen)

    def _model(self, fitted: FittedPreprocessing) -> tuple[WeightSpec, list[Any]]:
        """Build the model once; return the roles of its weights, and their initial values by seed."""
        from shoal.common.models import build, compile_model  # TensorFlow takes seconds to import

        spec, config = fitted.spec.input_spec, self.scenario.model
        model = build(config, spec, self.schema.num_classes, seed=self.scenario.seed)
        compile_model(model, self.scenario.training, self.schema.task)
        self.say(f"model: {model.count_params():,} weights, input {spec.kind} {spec.shape}")
        roles = WeightSpec.of(model, local_statistics=config.aggregate_statistics == "local")
        return roles, model.get_weights()

    def _execution_mode(self, grid: Grid, base: RequestBase, initial: ArrayRecord) -> ExecutionMode:
        """Return whether clients train in stacks or one by one; measures both at the first client."""
        wanted = self.scenario.resources.execution_mode
        cohort = self.scenario.strategy.clients_per_round or self.sites.count
        alone = (
            self.scenario.resources.transport == "grpc"
            or self.scenario.secure.aggregation  # each client masks its own update
            # DP-SGD computes a gradient for each row: a stack would hold those of all its clients at once.
            or mechanism_of(self.scenario.privacy).per_row
            or cohort < _LEAST_COHORT
        )
        if wanted == "sequential" or (wanted == "auto" and alone):
            return "sequential"
        request = AutotuneRequest(
            weights=initial,
            frozen_hash=base.frozen_hash,
            preprocessing=base.preprocessing,
            learning_rate=self.scenario.training.learning_rate,
        )
        message = Message(to_content(request), self.sites.node(0), table.AUTOTUNE_TYPE.name)
        exchange = ask(grid, self.sites, [message], "statistics", 0, self.scenario.resources.timeout_s)
        require_replies(exchange, 1.0, "autotune of the execution mode")
        reason = str(exchange.accepted[0].content.config_records[AUTOTUNE]["reason"])
        if wanted == "stacked" and reason:
            raise ConfigError(
                f'resources.execution_mode: "stacked" is not supported here: {reason}',
                hint='set it to "auto"',
            )
        taken = exchange.rows[0].metrics
        faster = taken["stacked-seconds"] < taken["sequential-seconds"]
        mode: ExecutionMode = "stacked" if not reason and (faster or wanted == "stacked") else "sequential"
        self.on_execution_mode(mode)
        seconds = (taken[f"{name}-seconds"] * 1e3 for name in ("stacked", "sequential"))
        self.say(
            f"execution mode: {mode}, "
            + (reason or "{:.2g} ms per client stacked, {:.2g} one by one".format(*seconds))
        )
        return mode
