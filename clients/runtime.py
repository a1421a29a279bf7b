"""What a client process keeps between messages: encoded shards, the encoder and the trainer.

A process may serve many clients in turn (a Ray worker) or one (a hospital). Nothing here depends on
the order in which it does: every entry is rebuilt from the shard and the messages if it is missing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shoal.clients.adversary import Adversary
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
from shoal.common.privacy.charges import Account
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

_MODELS_A_CLIENT = 8  # weights, gradients, optimizer state and copies in flight, in models' sizes
_CONTRIBUTIONS = 16  # clients of whom the words are kept between questions about statistics
_CACHE_BYTES = 1 << 30  # encoded rows kept by a process; more are encoded again when needed


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded inputs (rows, ...) and labels (rows,) of one split of a client."""

    x: NDArray[Any]
    y: NDArray[Any]


class ClientRuntime:
    """The data, encoder and trainer that one process works with.

    Attributes:
        adversary: plays the malicious clients; `None` wherever real sites stand behind the data.
    """

    adversary: Adversary | None = None

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        source: Source = "seeded",
        account: Account | None = None,
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            scenario, population: of the run; source: of noise and of what it depends on.
            account: of the one client of this process, whose noise never comes again; `None` in a
                simulation, where a round that is done again is the same again.
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
        self._initial: list[NDArray[Any]] = []  # all weights of the model, as the seed makes them
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
        """Take the preprocessing that the server fitted; a new one drops what was encoded before."""
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
            raise RuntimeError("use_preprocessing comes first")
        return self._encoder

    def rows(self, client: int) -> dict[Split, Rows]:
        """Return a client's encoded rows, from the cache where they are there."""
        if client not in self._cache:
            with span("load"):
                shard = self.population.shard(client)
                indices = self._splits(client, shard)
            with span(
                "preprocess"
            ):  # the whole shard at once, and then divided, is one pass instead of three
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
        """Return the rows that a client trains on in a round: its own, or what an attack makes of them."""
        rows = self.rows(origin.client)["train"]
        if self.adversary is None:
            return rows
        return Rows(*self.adversary.poisoned(rows.x, rows.y, self.encoder.spec.input_spec, origin))

    @property
    def trainer(self) -> Trainer:
        """The trainer, with the model built and compiled on first use."""
        if self._trainer is None:
            self._trainer = self._make_trainer()
        return self._trainer

    @property
    def weight_spec(self) -> WeightSpec:
        """Which of the model's weights travel, are personal, or never change."""
        if self._weight_spec is None:
            self._trainer = self._make_trainer()
        if self._weight_spec is None:
            raise RuntimeError("a model has no weight spec")
        return self._weight_spec

    def adopt_model(self, other: ClientRuntime) -> None:
        """Take the compiled model of another runtime of the same model, if its initial weights do not matter.

        They do where weights are frozen or personal: then only a runtime of the same seed has the same.
        """
        spec = other._weight_spec
        if spec is None or (other.scenario.seed != self.scenario.seed and (spec.frozen or spec.personal)):
            return
        self._trainer, self._stacked, self._private = other._trainer, other._stacked, other._private
        self._weight_spec, self._initial, self._frozen_hash = spec, other._initial, other._frozen_hash

    def weights(self, request: ModelRequest) -> list[NDArray[Any]]:
        """Return all weights of the model that a request sends: shared ones are the server's.

        Personal ones are as the seed makes them. Frozen ones are this process' own where they have the hash
        that the request names, or else those that were sent for it.

        Raises:
            MessageError: the shared weights are shaped otherwise than this client's model.
            FrozenWeightsError: there are no frozen weights of that hash here yet.
        """
        spec, shared = self.weight_spec, record_to_weights(request.weights)
        own = spec.take_shared(self._initial)
        if [(w.shape, w.dtype) for w in shared] != [(w.shape, w.dtype) for w in own]:
            raise MessageError("the weights in the request are not shaped as this client's model")
        return replaced(spec.with_shared(self._initial, shared), spec.frozen, self._frozen(request))

    def full_weights(self, shared: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all weights of the model: the given shared ones, others as the seed makes them."""
        return self.weight_spec.with_shared(self._initial, shared)

    def _frozen(self, request: ModelRequest) -> list[NDArray[Any]]:
        spec, asked = self.weight_spec, request.frozen_hash
        own = [self._initial[k] for k in spec.frozen]
        if asked == self._frozen_hash:
            return own
        if asked is None or not own:
            raise MessageError("the request and this client disagree on which weights are frozen")
        if request.frozen is not None:
            sent = record_to_weights(request.frozen)
            if content_hash(sent) != asked or [w.shape for w in sent] != [w.shape for w in own]:
                raise MessageError("the frozen weights in the request are not those of its hash")
            self._received = {asked: [np.array(w) for w in sent]}
        if asked not in self._received:
            raise FrozenWeightsError("this client has no frozen weights of the hash that the request names")
        return self._received[asked]

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
        """Graphs that this process has made: more than one a model and phase would be a waste of seconds."""
        return sum(t.traces for t in (self._trainer, self._stacked, self._private) if t is not None)

    def contribution(self, client: int) -> Contribution:
        """Return what a client adds to sums of statistics; texts are cut into words once for all passes."""
        if client not in self._contributions:
            self._contributions[client] = Contribution(self.raw(client)["train"], self.statistics_plan)
        self._contributions.move_to_end(client)
        while len(self._contributions) > _CONTRIBUTIONS:
            self._contributions.popitem(last=False)
        return self._contributions[client]

    def record_plan(self, rows: int) -> RecordPlan:
        """Return how a client with so many training rows keeps the promise to each of them."""
        before = self._statistics_charges
        return record_plan(self.scenario.privacy, self.scenario.training, rows, before)

    @property
    def client_plan(self) -> ClientPrivacyPlan:
        """How the promise to whole clients is kept, by this client's own scenario."""
        return make_plan(self.scenario, len(self.population), self._statistics_charges)

    def charge(self, number: int) -> int:
        """Charge a round of training to the client; return for how many its rows have been used, with it."""
        return number if self.account is None else self.account.charge(number)

    def charged(self, number: int) -> int:
        """Return for how many rounds a client's rows have been used, in round `number`."""
        return number if self.account is None else self.account.rounds

    @cached_property
    def statistics_plan(self) -> SumsPlan:
        """How statistics are told as sums, by this client's own scenario."""
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
        # TensorFlow takes seconds to import: only a client that trains pays for it.
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
