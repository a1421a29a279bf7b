"""What a client process keeps between messages: encoded shards, the encoder and the trainer.

A process may serve many clients in turn (a Ray worker) or one (a hospital). Nothing here depends on the
order of calls: every entry can be rebuilt from the shard and the messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.adversary import Adversary
from shoal.clients.kernel import PopulationAccount, Use
from shoal.clients.preprocessing.contribution import Contribution
from shoal.clients.shard import split_indices
from shoal.common.config import Scenario
from shoal.common.errors import FrozenWeightsError, MessageError
from shoal.common.keras_loading import load_keras
from shoal.common.messages.requests import ModelRequest
from shoal.common.origin import Origin
from shoal.common.preprocessing import Encoder, PreprocessingSpec
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.privacy.accounting import Charge
from shoal.common.privacy.noise import Source
from shoal.common.privacy.plan import ClientPrivacyPlan, make_plan
from shoal.common.privacy.record import RecordPlan, record_plan
from shoal.common.profiling import span
from shoal.common.schema import OwnSplits, Population, Schema, Shard, Split
from shoal.common.update.spec import WeightSpec, content_hash, replaced
from shoal.common.weights import record_to_weights

if TYPE_CHECKING:
    from shoal.clients.training.private_sgd import PrivateTrainer
    from shoal.clients.training.stacked import StackedTrainer
    from shoal.clients.training.trainer import Trainer

_MODELS_A_CLIENT = 8  # weights, gradients, optimizer state and temporary copies, in model sizes
_CONTRIBUTIONS = 16  # clients whose words are kept between passes of statistics
_CACHE_BYTES = 1 << 30  # encoded rows kept by a process; more are encoded again when needed


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded inputs (rows, ...) and labels (rows,) of one split of a client."""

    x: NDArray[Any]
    y: NDArray[Any]


class ClientRuntime:
    """The data, encoder and trainer that one process works with.

    Attributes:
        adversary: plays the malicious clients; `None` for real sites.
    """

    adversary: Adversary | None = None

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        source: Source = "seeded",
        account: PopulationAccount | None = None,
    ) -> None:
        """Prepare; loads no data yet.

        scenario, population: of the run; source: of noise and of what depends on it.
            account: of the rows of the single client of this process; `None` in a simulation, which composes
                and reports.
        """
        self.scenario = scenario
        self.source = source
        self.account = account
        self.population = population
        self.schema: Schema = population.schema
        self._encoder: Encoder | None = None
        self._trainer: Trainer | None = None
        self._stacked: StackedTrainer | None = None
        self._private: PrivateTrainer | None = None
        self._weight_spec: WeightSpec | None = None
        self._initial: list[NDArray[Any]] = []  # all weights of the model, as initialised by the seed
        self._frozen_hash: bytes | None = None
        self._received: dict[bytes, list[NDArray[Any]]] = {}  # frozen weights by their hash
        self._spec_json = ""
        self._cache: OrderedDict[int, dict[Split, Rows]] = OrderedDict()
        self._cache_bytes = 0
        self._contributions: OrderedDict[int, Contribution] = OrderedDict()

    def raw(self, client: int) -> dict[Split, Shard]:
        """Load a client's raw rows and divide them."""
        shard = self.population.shard(client)
        return {name: shard.take(rows) for name, rows in self._splits(client, shard).items()}

    def _splits(self, client: int, shard: Shard) -> Mapping[Split, NDArray[np.int64]]:
        if isinstance(self.population, OwnSplits):
            return self.population.splits(client)
        return split_indices(shard.labels, self.scenario.data, self.scenario.seed, client)

    def use_preprocessing(self, spec_json: str) -> None:
        """Use the preprocessing that the server fitted; a new one drops all encoded rows."""
        if spec_json != self._spec_json:
            self._encoder = Encoder(PreprocessingSpec.from_json(spec_json))
            self._trainer = self._stacked = self._private = self._weight_spec = None
            self._cache.clear()
            self._contributions.clear()
            self._cache_bytes = 0
            self._spec_json = spec_json

    @property
    def encoder(self) -> Encoder:
        """The encoder of the preprocessing in use."""
        if self._encoder is None:
            raise RuntimeError("use_preprocessing must be called first")
        return self._encoder

    def rows(self, client: int) -> dict[Split, Rows]:
        """Return a client's encoded rows, from the cache if present."""
        if client not in self._cache:
            with span("load"):
                shard = self.population.shard(client)
                indices = self._splits(client, shard)
            with span("preprocess"):  # encoding the whole shard before splitting is one pass instead of three
                x = self.encoder.encode(shard.columns)
                encoded = {name: Rows(x[rows], shard.labels[rows]) for name, rows in indices.items()}
            self._cache[client] = encoded
            self._cache_bytes += _size(encoded)
        self._cache.move_to_end(client)
        found = self._cache[client]
        while self._cache_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cache_bytes -= _size(self._cache.popitem(last=False)[1])
        return found

    def training_rows(self, origin: Origin) -> Rows:
        """Return the rows that a client trains on in a round: its own, or as altered by an attack."""
        rows = self.rows(origin.client)["train"]
        if self.adversary is None:
            return rows
        return Rows(*self.adversary.poisoned(rows.x, rows.y, self.encoder.spec.input_spec, origin))

    @property
    def trainer(self) -> Trainer:
        """The trainer; builds and compiles the model on first use."""
        if self._trainer is None:
            self._trainer = self._make_trainer()
        return self._trainer

    @property
    def weight_spec(self) -> WeightSpec:
        """Which of the model's weights are sent, personal, or frozen."""
        if self._weight_spec is None:
            self._trainer = self._make_trainer()
        if self._weight_spec is None:
            raise RuntimeError("a model has no weight spec")
        return self._weight_spec

    def adopt_model(self, other: ClientRuntime) -> None:
        """Take over the compiled model of another runtime, if its initial weights do not matter.

        They matter where weights are frozen or personal: these are equal only in runtimes with the same seed.
        """
        spec = other._weight_spec
        if spec is None or (other.scenario.seed != self.scenario.seed and (spec.frozen or spec.personal)):
            return
        self._trainer, self._stacked, self._private = other._trainer, other._stacked, other._private
        self._weight_spec, self._initial, self._frozen_hash = spec, other._initial, other._frozen_hash

    def weights(self, request: ModelRequest) -> list[NDArray[Any]]:
        """Return all weights of the model for a request; shared ones come from the server.

        Personal weights are as the seed initialises them. Frozen weights are this process's own if they have
        the hash in the request, and otherwise those that the server sent for it.

        Raises:
            MessageError: the shared weights do not have the shapes of this client's model.
            FrozenWeightsError: no frozen weights with that hash have been received yet.
        """
        spec, shared = self.weight_spec, record_to_weights(request.weights)
        own = spec.take_shared(self._initial)
        if [(w.shape, w.dtype) for w in shared] != [(w.shape, w.dtype) for w in own]:
            raise MessageError("the weights in the request do not have the shapes of this client's model")
        return replaced(spec.with_shared(self._initial, shared), spec.frozen, self._frozen(request))

    def full_weights(self, shared: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all weights of the model: the given shared ones, the others as initialised by the seed."""
        return self.weight_spec.with_shared(self._initial, shared)

    def _frozen(self, request: ModelRequest) -> list[NDArray[Any]]:
        spec, wanted_hash = self.weight_spec, request.frozen_hash
        own = [self._initial[k] for k in spec.frozen]
        if wanted_hash == self._frozen_hash:
            return own
        if wanted_hash is None or not own:
            raise MessageError("the request and this client disagree on which weights are frozen")
        if request.frozen is not None:
            sent = record_to_weights(request.frozen)
            if content_hash(sent) != wanted_hash or [w.shape for w in sent] != [w.shape for w in own]:
                raise MessageError("the frozen weights in the request do not match its hash")
            self._received = {wanted_hash: [np.array(w) for w in sent]}
        if wanted_hash not in self._received:
            raise FrozenWeightsError("this client has no frozen weights with the hash in the request")
        return self._received[wanted_hash]

    @property
    def stacked(self) -> StackedTrainer:
        """The trainer of many clients at once, with the model of `trainer`."""
        if self._stacked is None:
            from shoal.clients.training.stacked import StackedTrainer

            self._stacked = StackedTrainer(self.trainer.model)
        return self._stacked

    @property
    def private(self) -> PrivateTrainer:
        """The trainer of DP-SGD, with the model of `trainer`."""
        if self._private is None:
            from shoal.clients.training.private_sgd import PrivateTrainer

            privacy = self.scenario.privacy
            self._private = PrivateTrainer(self.trainer, privacy.clip_norm, privacy.microbatch)
        return self._private

    @property
    def traces(self) -> int:
        """Graphs that this process has traced: more than one per model and phase would waste seconds."""
        return sum(t.traces for t in (self._trainer, self._stacked, self._private) if t is not None)

    def contribution(self, client: int) -> Contribution:
        """Return a client's part of sums of statistics; texts are split into words once for all passes."""
        if client not in self._contributions:
            self._contributions[client] = Contribution(self.raw(client)["train"], self.statistics_plan)
        self._contributions.move_to_end(client)
        while len(self._contributions) > _CONTRIBUTIONS:
            self._contributions.popitem(last=False)
        return self._contributions[client]

    def record_plan(self, rows: int) -> RecordPlan:
        """Return the plan of record-level privacy for a client with this many training rows."""
        before = self._statistics_charges
        return record_plan(self.scenario.privacy, self.scenario.training, rows, before)

    @property
    def client_plan(self) -> ClientPrivacyPlan:
        """The plan of client-level privacy, from this client's own scenario."""
        return make_plan(self.scenario, len(self.population), self._statistics_charges)

    def spend(self, use: Use) -> None:
        """Charge a use of a real site's rows to its account, before they are used.

        Raises:
            BudgetError: the account does not allow it.
        """
        if self.account is not None:
            self.account.spend(use)

    def charge(self, use: Use, round_number: int, require: Callable[[int], None]) -> None:
        """Charge a round of training, if `require` allows the number of a client's rounds including it."""
        require(round_number if self.account is None else self.account.rounds_with(use))
        self.spend(use)

    def charged(self, round_number: int) -> int:
        """Return the number of rounds that a client has been charged for, up to round `round_number`."""
        return round_number if self.account is None else self.account.rounds

    @cached_property
    def statistics_plan(self) -> SumsPlan:
        """The plan for sending statistics as sums, from this client's own scenario."""
        return SumsPlan.of(self.schema, self.scenario)

    @property
    def _statistics_charges(self) -> tuple[Charge, ...]:
        return self.statistics_plan.protection.charges

    def stack_limit(self, weights: list[NDArray[Any]]) -> int:
        """Return how many clients may be trained at once within resources.stack_mb, at least 1."""
        budget = self.scenario.resources.stack_mb * 1_000_000
        return max(1, int(budget // (_MODELS_A_CLIENT * max(1, sum(w.nbytes for w in weights)))))

    @span("build")
    def _make_trainer(self) -> Trainer:
        # TensorFlow takes seconds to import: only clients that train should pay for it.
        load_keras()
        from shoal.clients.training.trainer import Trainer
        from shoal.common.models import build, compile_model

        spec = self.encoder.spec.input_spec
        model = build(self.scenario.model, spec, self.schema.num_classes, seed=self.scenario.seed)
        compile_model(model, self.scenario.training, self.schema.task)
        local = self.scenario.model.aggregate_statistics == "local"
        self._weight_spec = WeightSpec.of(model, local_statistics=local)
        self._initial = model.get_weights()
        self._frozen_hash = self._weight_spec.frozen_hash(self._initial)
        return Trainer(model)


def _size(encoded: dict[Split, Rows]) -> int:
    return int(np.sum([rows.x.nbytes + rows.y.nbytes for rows in encoded.values()]))
