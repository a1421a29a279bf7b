"""Sessions of secure aggregation over a Grid: sums, losses on the way, and what the server gets to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from clients.app import make_client_app
from clients.resident import Resident
from common import records
from common.config import Scenario
from common.errors import TooFewRepliesError
from common.events import ClientRow, RoundRow
from common.flower_shim import identify_process, make_run
from common.schema import Population
from common.secure import layout
from common.secure.agreement import KeyPair, mask_key
from common.secure.fixed_point import ROUNDING, FixedPoint, from_ring
from common.secure.masks import Mask, add_masks
from server.app import Hooks, Outcome
from server.cohort_grid import CohortGrid
from server.secure.training import sum_vectors
from server.sites import Sites
from simulations import datasets, load_scenario
from simulations.engine.grid import EngineGrid
from simulations.engine.serial import SerialExecutor
from simulations.engine.worker import Federation
from simulations.run import coordinate

SETTINGS = (
    "resources.backend=serial",
    "training.rounds=1",
    "training.local_epochs=1",
    "output.bootstrap=0",
    "data.validation_fraction=0",
)
LARGEST = 1000.0  # rows of a client of digits are fewer
CLIENTS = 10


class LosingGrid(CohortGrid):
    """Passes everything on and keeps it, but loses replies: message type → clients whose reply is lost."""

    lost: dict[str, Sequence[int]]
    seen: list[tuple[Message, Message]]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = {m.metadata.dst_node_id: m for m in messages}
        replies = []
        for reply in super().send_and_receive(list(asked.values()), timeout=timeout):
            request = asked[reply.metadata.src_node_id]
            lost = self.lost.get(request.metadata.message_type, ())
            if reply.metadata.src_node_id - 2 not in lost:
                self.seen.append((request, reply))
                replies.append(reply)
        return replies


class Rounds:
    """Keeps what is told of rounds."""

    def __init__(self) -> None:
        self.rows: list[tuple[RoundRow, Sequence[ClientRow]]] = []

    def on_message(self, text: str) -> None:
        """Ignore."""

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        self.rows.append((row, clients))

    def on_sites(self, rows: object) -> None:
        """Ignore."""


def scenario_of(*settings: str) -> Scenario:
    return load_scenario("digits", [*SETTINGS, *settings])


@pytest.fixture(scope="module")
def population() -> Population:
    return datasets.load_population(scenario_of())


def losing(lost: dict[str, Sequence[int]]) -> tuple[Callable[[CohortGrid], CohortGrid], list]:  # type: ignore[type-arg]
    seen: list[tuple[Message, Message]] = []

    def wrap(grid):  # type: ignore[no-untyped-def]
        found = LosingGrid(grid, grid.get_node_ids())
        found.lost, found.seen = lost, seen
        return found

    return wrap, seen


def run(
    scenario: Scenario, population: Population, lost: dict[str, Sequence[int]] | None = None
) -> tuple[Outcome, Rounds, list[tuple[Message, Message]]]:
    wrap, seen = losing(lost or {})
    rounds, outcomes = Rounds(), list[Outcome]()
    hooks = Hooks([rounds], lambda fitted: None)  # type: ignore[list-item]
    coordinate(scenario, population, hooks, outcomes.append, wrap)  # type: ignore[arg-type]
    return outcomes[0], rounds, seen


def updates_in_clear(seen: list[tuple[Message, Message]]) -> dict[int, np.ndarray]:
    """Return the update of each client in a run without secure aggregation, (numbers,)."""
    found = {}
    for request, reply in seen:
        if request.metadata.message_type == "train":
            start = records.record_to_weights(request.content["arrays"])
            table = records.record_to_weights(reply.content["arrays"])
            update = [b.astype(np.float64) - a for a, b in zip(start, table, strict=True)]
            found[reply.metadata.src_node_id - 2] = np.concatenate([u.reshape(-1) for u in update])
    return found


# Every update on its own: Krum, of one client, asks for them.
ALONE = ("resources.clients_per_chunk=1",)


@pytest.fixture(scope="module")
def plain(population: Population) -> tuple[Outcome, Rounds, dict[int, np.ndarray]]:
    outcome, rounds, seen = run(scenario_of(*ALONE), population)
    return outcome, rounds, updates_in_clear(seen)


def flat(outcome: Outcome) -> np.ndarray:
    arrays = records.record_to_weights(outcome.progress.arrays)
    return np.concatenate([w.reshape(-1) for w in arrays]).astype(np.float64)


def test_a_round_gives_the_weights_of_one_in_clear_within_the_stated_error(
    population: Population, plain: tuple[Outcome, Rounds, dict[int, np.ndarray]]
) -> None:
    """Error of the mean: 1.5 · n · range / (S · Σ weights), and of float32: of weights of at most 1, twice."""
    outcome, rounds, seen = run(scenario_of("secure.aggregation=true"), population)
    rows = [r.examples for r in plain[1].rows[1][1]]
    weight = sum(rows) / max(rows)
    bound = 3 * ROUNDING * CLIENTS * FixedPoint.for_sum(CLIENTS, 1.0).step / weight + 2 * 2.0**-24
    assert np.abs(flat(outcome) - flat(plain[0])).max() <= bound < 1e-6
    row, clients = rounds.rows[1]
    assert (row.succeeded, row.examples) == (CLIENTS, sum(rows))
    assert row.train_loss == pytest.approx(plain[1].rows[1][0].train_loss, abs=1e-5)
    assert all(c.bytes_up > 0 and c.examples == 0 and not c.metrics and not c.error for c in clients)
    assert not any(request.metadata.message_type == "train" for request, _ in seen)


def test_a_round_survives_losses_at_every_stage(
    population: Population, plain: tuple[Outcome, Rounds, dict[int, np.ndarray]]
) -> None:
    """3 of 10 may be lost: one gives no shares, one no input, and one, whose input counts, does not unmask."""
    lost = {records.SECURE_SHARES: [2], records.SECURE_TRAIN: [7], records.SECURE_UNMASK: [4]}
    outcome, rounds, _ = run(scenario_of("secure.aggregation=true"), population, lost)
    rows = {r.client: r.examples for r in plain[1].rows[1][1]}
    kept = [c for c in range(CLIENTS) if c not in (2, 7)]
    initial = flat_of(plain[0], population)
    mean = sum(rows[c] * plain[2][c] for c in kept) / sum(rows[c] for c in kept)
    assert np.abs(flat(outcome) - (initial + mean)).max() <= 1e-6
    row, clients = rounds.rows[1]
    assert (row.cohort, row.succeeded, row.examples) == (CLIENTS, 8, sum(rows[c] for c in kept))
    errors = {c.client: c.error.split(":")[0] for c in clients if c.error}
    assert errors == {2: "shares", 7: "input"}


def flat_of(outcome: Outcome, population: Population) -> np.ndarray:
    """Return the initial weights: those that any update of `plain` started from."""
    from common.models import build

    scenario = scenario_of()
    spec = outcome.fitted.spec.input_spec
    model = build(scenario.model, spec, population.schema.num_classes, seed=scenario.seed)
    return np.concatenate([w.reshape(-1) for w in model.get_weights()]).astype(np.float64)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ({records.SECURE_VECTOR: [0, 1, 2, 3]}, '6 of 10 clients are left after the stage "input"; 7'),
        ({records.SECURE_KEYS: [0, 1, 2], records.SECURE_SHARES: [3]}, "6 of 10"),
        ({records.SECURE_VECTOR: [0], records.SECURE_UNMASK: [1, 2, 3]}, "6 shares of the seed of client 1"),
    ],
)
def test_a_round_that_loses_more_ends_with_numbers(
    population: Population, lost: dict[str, Sequence[int]], words: str
) -> None:
    with pytest.raises(TooFewRepliesError, match=words):
        sum_rows(population, lost)


def sum_rows(
    population: Population, lost: dict[str, Sequence[int]], *settings: str
) -> tuple[np.ndarray, list[tuple[Message, Message]]]:
    """Add up the rows of all clients, which needs no TensorFlow."""
    identify_process(1)
    scenario = scenario_of("secure.aggregation=true", *settings)
    sites = Sites(len(population), population.name)
    resident = Resident(scenario, population)
    executor = SerialExecutor(
        lambda: make_client_app(resident), Federation(1, {}, sites.count, show_errors=True)
    )
    states: dict[int, RecordDict] = {}
    wrap, seen = losing(lost)
    grid = wrap(EngineGrid(executor, sites, make_run(1), states=states))  # type: ignore[arg-type]
    total, summed = sum_vectors(grid, sites, scenario, range(sites.count), "rows", 3, LARGEST)
    kept = set(summed.survivors) - set(lost.get(records.SECURE_UNMASK, ()))
    assert all(not state for node, state in states.items() if node - 2 in kept), "secrets are left behind"
    return total, seen


def test_any_vector_can_be_added_up(population: Population) -> None:
    """Rows of the splits are whole numbers below 1000, of which a level is 1000 / 2^27: the sum is exact."""
    resident = Resident(scenario_of(), population)
    rows = [[resident.raw(c)[s].rows for s in ("train", "validation", "test")] for c in range(CLIENTS)]
    total, _ = sum_rows(population, {})
    assert np.rint(total).tolist() == np.sum(rows, axis=0).tolist()
    without, _ = sum_rows(population, {records.SECURE_VECTOR: [3]})
    assert np.rint(without).tolist() == np.sum([r for c, r in enumerate(rows) if c != 3], axis=0).tolist()
