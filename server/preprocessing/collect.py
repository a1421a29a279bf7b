"""Fits the preprocessing over the clients, from aggregates of each or from sums over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from shoal.common.config import Scenario
from shoal.common.events import ClientRow
from shoal.common.messages import table
from shoal.common.messages.requests import StatisticsRequest
from shoal.common.messages.schema import to_content
from shoal.common.preprocessing import PreprocessingSpec, Statistics
from shoal.common.preprocessing.statistics_records import unpack
from shoal.common.preprocessing.sums.noise import is_asked_for_sums
from shoal.common.privacy.noise import Source, randomness
from shoal.common.schema import Schema
from shoal.common.sites import Sites
from shoal.server.exchange import ask_enough
from shoal.server.preprocessing import fit as preprocessing
from shoal.server.preprocessing.summed_statistics import SummedStatistics
from shoal.server.preprocessing.sums import ClearSum, MaskedSum, SumOver
from shoal.server.sampling import cohort


@dataclass(frozen=True, slots=True)
class FittedPreprocessing:
    """The result of the clients' statistics, or of a sample of clients.

    Attributes:
        spec: the preprocessing; total: the statistics of all of them together.
        statistics: by client index, aggregates only; empty where clients reported sums.
        rows: client index → split → number of rows; empty where clients reported sums.
        largest: upper bound on any client's training rows, where clients reported sums; else 0.
    """

    spec: PreprocessingSpec
    total: Statistics
    statistics: Mapping[int, Statistics]
    rows: Mapping[int, Mapping[str, int]]
    largest: int = 0


@dataclass(frozen=True, slots=True)
class PreprocessingFitter:
    """Collects what the preprocessing is fitted from.

    Attributes:
        grid: carries the messages; sites: the clients behind it.
        scenario: of the run; schema: what a row looks like.
        source: of noise on sums; say: called with a message on each step.
    """

    grid: Grid
    sites: Sites
    scenario: Scenario
    schema: Schema
    source: Source
    say: Callable[[str], None]

    def fit(self) -> FittedPreprocessing:
        """Query the clients, or a sample of very many, and fit the preprocessing.

        Raises:
            ShoalError: too few replied, one reported too much, or no column is left.
        """
        size = self.scenario.preprocessing.max_clients
        clients = cohort(self.scenario.seed, 0, self.sites.count, size, "statistics")
        if is_asked_for_sums(self.scenario):
            return self._from_sums(clients)
        return self._from_aggregates(clients)

    def _from_aggregates(self, clients: Sequence[int]) -> FittedPreprocessing:
        self.say(f"statistics: asking {len(clients)} clients for aggregates")
        content = to_content(StatisticsRequest())
        least = self.scenario.preprocessing.min_count
        exchange = ask_enough(
            self.grid,
            self.sites,
            [Message(content, node, table.STATISTICS.name) for node in self.sites.nodes(clients)],
            "statistics",
            0,
            self.scenario,
            "preprocessing statistics",
            say=self.say,
            usable=lambda content: unpack(content).check(least),
        )
        found = {
            self.sites.client(reply.metadata.src_node_id): unpack(reply.content)
            for reply in exchange.accepted
        }
        spec = preprocessing.fit(list(found.values()), self.schema, self.scenario.preprocessing)
        rows = {row.client: _row_counts(row) for row in exchange.rows if not row.error}
        return FittedPreprocessing(spec, Statistics.merge(list(found.values())), found, rows)

    def _from_sums(self, clients: Sequence[int]) -> FittedPreprocessing:
        """Fit from sums, with noise if configured."""
        self.say(f"statistics: sums over {len(clients)} clients")
        if self.scenario.secure.aggregation:
            sum_over: SumOver = MaskedSum(self.grid, self.sites, clients, self.scenario)
        else:
            sum_over = ClearSum(self.grid, self.sites, clients, self.scenario, self.say)
        draws = randomness(self.source, self.scenario.seed, "statistics-noise")
        summed = SummedStatistics(sum_over, len(clients), self.schema, self.scenario, draws, self.say)
        total = summed.total()
        spec = preprocessing.fit_total(total, self.schema, self.scenario.preprocessing)
        return FittedPreprocessing(spec, total, {}, {}, summed.largest)


def class_weights(
    scenario: Scenario, schema: Schema, fitted: FittedPreprocessing
) -> tuple[float, ...] | None:
    """Return the weight of each class in the loss; `None` for equal weights."""
    if scenario.training.class_weights != "balanced":
        return None
    weights = preprocessing.class_weights(fitted.total, schema)
    return None if weights is None else tuple(weights[k] for k in range(schema.num_classes))


def _row_counts(row: ClientRow) -> dict[str, int]:
    return {split: int(row.metrics[f"{split}-rows"]) for split in ("train", "validation", "test")}
