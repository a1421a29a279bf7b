"""The final test: the federated model at every client, compared with local and centralised models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.events import ClientRow, Interval, Model, Phase, SiteRow
from shoal.common.messages import table
from shoal.common.messages.names import ARRAYS
from shoal.common.messages.requests import AloneRequest, TestRequest
from shoal.common.messages.schema import to_content
from shoal.common.messages.table import MessageType
from shoal.common.sites import Sites
from shoal.common.weights import same_shapes
from shoal.server.exchange import Exchange, ask
from shoal.server.preprocessing.collect import FittedPreprocessing
from shoal.server.sampling import cohort
from shoal.server.schedule import learning_rate
from shoal.server.start import RunStart


@dataclass(frozen=True, slots=True)
class FinalTest:
    """Tests the trained models at the clients.

    Attributes:
        grid, sites: reach the clients; scenario: of the run; start: what training started from.
        pooled_node: node that answers `train.pooled`, in a simulation with `--compare`; else `None`.
        say: called with a line for each step.
    """

    grid: Grid
    sites: Sites
    scenario: Scenario
    start: RunStart
    pooled_node: int | None
    say: Callable[[str], None]

    def run(self, kept: ArrayRecord, *, judged: bool) -> list[SiteRow]:
        """Test the kept federated model, and the baselines if requested, at every client.

        Args:
            kept: its shared weights; judged: whether it is the best round's by validation, not the last's.
        """
        size = self.scenario.strategy.evaluate_clients
        clients = [int(c) for c in cohort(self.scenario.seed, 0, self.sites.count, size, "evaluation")]
        self.say(f"test: the {'best' if judged else 'last'} federated model at {len(clients)} clients")
        tests: dict[Model, Exchange] = {"federated": self._tested(kept, clients)}
        if self.scenario.output.compare:
            tests |= self._baselines(clients)
        return site_rows(self.sites, clients, self.start.fitted, tests)

    def _baselines(self, clients: Sequence[int]) -> dict[Model, Exchange]:
        """Train each client alone, and all rows pooled where the simulation can, in one exchange."""
        training, base = self.scenario.training, self.start.base
        rates = tuple(learning_rate(training, r) for r in range(1, training.rounds + 1))
        request = AloneRequest(
            weights=self.start.initial,
            frozen_hash=base.frozen_hash,
            preprocessing=base.preprocessing,
            learning_rates=rates,
            class_weights=base.class_weights,
        )
        pooled, content = self.pooled_node, to_content(request)
        more = "" if pooled is None else ", and their pooled rows"
        self.say(f"baselines: training {len(clients)} clients alone{more}")
        messages = self._messages(table.LOCAL, content, clients)
        if pooled is not None:
            messages.append(Message(content, pooled, table.POOLED.name))
        done = self._ask(messages, "local", self._usable)
        found: dict[Model, Exchange] = {"local": done}
        for reply in done.accepted:
            if reply.metadata.src_node_id == pooled:
                arrays = reply.content.array_records[ARRAYS]
                found["centralised"] = self._tested(arrays, clients)
        for row in done.rows:
            if row.error:
                self.say(f"baseline failed at {row.name}: {row.error}")
        return found

    def _usable(self, content: RecordDict) -> None:
        arrays = content.get(ARRAYS)
        if isinstance(arrays, ArrayRecord) and not same_shapes(arrays, self.start.initial):
            raise DisclosureError("the arrays in a reply do not have the shapes of the model's weights")

    def _tested(self, arrays: ArrayRecord, clients: Sequence[int]) -> Exchange:
        base = self.start.base
        request = TestRequest(weights=arrays, frozen_hash=base.frozen_hash, preprocessing=base.preprocessing)
        return self._ask(self._messages(table.TEST, to_content(request), clients), "test")

    def _messages(self, kind: MessageType, content: RecordDict, clients: Sequence[int]) -> list[Message]:
        return [Message(content, self.sites.node(c), kind.name) for c in clients]

    def _ask(
        self,
        messages: Sequence[Message],
        phase: Phase,
        usable: Callable[[RecordDict], None] = lambda content: None,
    ) -> Exchange:
        return ask(self.grid, self.sites, messages, phase, 0, self.scenario.resources.timeout_s, usable)


def site_rows(
    sites: Sites, clients: Sequence[int], fitted: FittedPreprocessing, tests: Mapping[Model, Exchange]
) -> list[SiteRow]:
    """Return the final test of each client, in one pass over the replies.

    Args:
        sites: names the clients; clients: indices, each tested in every exchange.
        fitted: gives the clients' row counts; tests: by model, the federated one among them.
    """
    rows = {model: {row.client: row for row in one.rows} for model, one in tests.items()}
    return [
        _site_row(sites, client, fitted, {model: found[client] for model, found in rows.items()})
        for client in clients
    ]


def _site_row(
    sites: Sites, client: int, fitted: FittedPreprocessing, tests: Mapping[Model, ClientRow]
) -> SiteRow:
    numbers = tests["federated"].metrics
    counts = fitted.rows.get(client, {})
    return SiteRow(
        client=client,
        name=sites.name(client),
        train_rows=counts.get("train", -1),
        test_rows=counts.get("test", tests["federated"].examples or -1),
        positives=int(numbers.get("positives", -1)),
        tests={model: _intervals(row.metrics) for model, row in tests.items()},
    )


def _intervals(numbers: Mapping[str, float]) -> dict[str, Interval]:
    names = [n for n in numbers if not n.endswith(("-low", "-high")) and n not in ("positives", "steps")]
    return {
        n: Interval(numbers[n], numbers.get(f"{n}-low", math.nan), numbers.get(f"{n}-high", math.nan))
        for n in names
    }
