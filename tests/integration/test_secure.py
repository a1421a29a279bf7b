"""Sessions of secure aggregation over a Grid: sums, losses on the way, and what the server gets to see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from scipy.stats import chi2, norm

from shoal.clients.app import make_client_app
from shoal.clients.cohort import train_cohort
from shoal.clients.preprocessing.statistics import local_statistics
from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure.training import summand
from shoal.clients.worker import WorkerContext
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import TooFewRepliesError
from shoal.common.events import ClientRow, RoundRow
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages import table
from shoal.common.messages.names import MASKED, SECURE_SESSION
from shoal.common.messages.requests import SecureTrainRequest, TrainRequest
from shoal.common.messages.schema import parse, to_content
from shoal.common.schema import Population
from shoal.common.secure import layout
from shoal.common.secure.agreement import KeyPair, mask_key
from shoal.common.secure.digest import digest
from shoal.common.secure.field import combine, int_to_secret, share_from_bytes
from shoal.common.secure.fixed_point import ROUNDING, FixedPoint, from_ring
from shoal.common.secure.layout import SumNoise
from shoal.common.secure.masks import Mask, add_masks
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.server.app import Hooks, Outcome
from shoal.server.checkpoint import Checkpoints
from shoal.server.cohort_grid import CohortGrid
from shoal.server.preprocessing.fit import fit
from shoal.server.secure.training import sum_vectors, train_securely
from shoal.simulations import datasets
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor
from shoal.simulations.run import coordinate

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
            update = record_to_weights(reply.content["arrays"])
            found[reply.metadata.src_node_id - 2] = np.concatenate(
                [u.reshape(-1).astype(np.float64) for u in update]
            )
    return found


# Every update on its own: Krum, of one client, asks for them.
ALONE = ("resources.clients_per_chunk=1",)


@pytest.fixture(scope="module")
def plain(population: Population) -> tuple[Outcome, Rounds, dict[int, np.ndarray]]:
    outcome, rounds, seen = run(scenario_of(*ALONE), population)
    return outcome, rounds, updates_in_clear(seen)


def flat(outcome: Outcome) -> np.ndarray:
    arrays = record_to_weights(outcome.progress.arrays)
    return np.concatenate([w.reshape(-1) for w in arrays]).astype(np.float64)


def test_a_round_gives_the_weights_of_one_in_clear_within_the_stated_error(
    population: Population, plain: tuple[Outcome, Rounds, dict[int, np.ndarray]]
) -> None:
    """The mean errs by 1.5 · n · range / (S · Σ weights); two roundings of weights ≤ 1 to float32 too."""
    outcome, rounds, seen = run(scenario_of("secure.aggregation=true"), population)
    rows = [r.examples for r in plain[1].rows[1][1]]
    weight = sum(rows) / 2 ** math.ceil(math.log2(max(rows)))  # the statistics tell the power of two only
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
    """3 of 10: one gives no shares, one no input, and one, whose input counts, does not unmask."""
    lost = {table.SECURE_SHARES.name: [2], table.SECURE_TRAIN.name: [7], table.SECURE_UNMASK.name: [4]}
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
    from shoal.common.models import build

    scenario = scenario_of()
    spec = outcome.fitted.spec.input_spec
    model = build(scenario.model, spec, population.schema.num_classes, seed=scenario.seed)
    return np.concatenate([w.reshape(-1) for w in model.get_weights()]).astype(np.float64)


def test_a_checkpoint_holds_no_secret_of_a_client_that_was_lost(
    population: Population, tmp_path: Path
) -> None:
    scenario = scenario_of("secure.aggregation=true", "training.local_steps=1")
    checkpoints = Checkpoints(tmp_path, scenario)
    wrap, seen = losing({table.SECURE_TRAIN.name: [7]})
    hooks = Hooks([], lambda fitted: None, checkpoints=checkpoints)
    coordinate(scenario, population, hooks, lambda outcome: None, wrap)  # type: ignore[arg-type]
    assert any(request.metadata.message_type == table.SECURE_UNMASK.name for request, _ in seen)
    found = checkpoints.load()
    assert found is not None
    assert not any(found[1]["clients"].values())


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ({table.SECURE_VECTOR.name: [0, 1, 2, 3]}, '6 of 10 clients are left after the stage "input"; 7'),
        ({table.SECURE_KEYS.name: [0, 1, 2], table.SECURE_SHARES.name: [3]}, "6 of 10"),
        (
            {table.SECURE_VECTOR.name: [0], table.SECURE_UNMASK.name: [1, 2, 3]},
            "6 shares of the seed of client 1",
        ),
    ],
)
def test_a_round_that_loses_more_ends_with_numbers(
    population: Population, lost: dict[str, Sequence[int]], words: str
) -> None:
    with pytest.raises(TooFewRepliesError, match=words):
        sum_rows(population, lost)


def sum_rows(
    population: Population, lost: dict[str, Sequence[int]], kind: type[LosingGrid] = LosingGrid
) -> tuple[np.ndarray, list[tuple[Message, Message]]]:
    """Add up the rows of all clients, which needs no TensorFlow."""
    identify_process(1)
    scenario = scenario_of("secure.aggregation=true")
    sites = Sites(len(population), population.name)
    runtime = ClientRuntime(scenario, population)
    executor = SerialExecutor(
        lambda: make_client_app(runtime), WorkerContext(1, {}, sites.count, show_errors=True)
    )
    states: dict[int, RecordDict] = {}
    grid = kind(EngineGrid(executor, sites, make_run(1), contexts=states), sites.node_ids)
    grid.lost, grid.seen = lost, []
    total, summed = sum_vectors(grid, sites, scenario, range(sites.count), "rows", 3, LARGEST)
    kept = set(summed.survivors) - set(lost.get(table.SECURE_UNMASK.name, ()))
    assert all(not state for node, state in states.items() if node - 2 in kept), "secrets are left behind"
    return total, grid.seen


def test_any_vector_can_be_added_up(population: Population) -> None:
    """Rows of the splits are whole numbers below 1000, of which a level is 1000 / 2^27: the sum is exact."""
    runtime = ClientRuntime(scenario_of(), population)
    rows = [[runtime.raw(c)[s].rows for s in ("train", "validation", "test")] for c in range(CLIENTS)]
    total, _ = sum_rows(population, {})
    assert np.rint(total).tolist() == np.sum(rows, axis=0).tolist()
    without, _ = sum_rows(population, {table.SECURE_VECTOR.name: [3]})
    assert np.rint(without).tolist() == np.sum([r for c, r in enumerate(rows) if c != 3], axis=0).tolist()


# -- what the server gets to see ----------------------------------------------------------------

LOST = 7  # gives shares, but its input does not arrive
COLLUDING = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class View:
    """All that the server has after a session, and what only the test knows.

    Attributes:
        replies: kind → client → content, of all that arrived; requests: the same of what was sent.
        secrets: client → its state before the last stage; updates: client → what it masked, in levels.
    """

    replies: Mapping[str, Mapping[int, RecordDict]]
    requests: Mapping[str, Mapping[int, RecordDict]]
    secrets: Mapping[int, ConfigRecord]
    updates: Mapping[int, np.ndarray]

    def masked(self, client: int) -> np.ndarray:
        array = self.replies[table.SECURE_TRAIN.name][client].array_records[MASKED]["0"]
        return array.numpy()

    @property
    def survivors(self) -> list[int]:
        return sorted(self.replies[table.SECURE_TRAIN.name])


@pytest.fixture(scope="module")
def view(population: Population) -> View:
    identify_process(1)
    scenario = scenario_of("secure.aggregation=true")
    sites, runtime = Sites(CLIENTS, population.name), ClientRuntime(scenario, population)
    app = make_client_app(runtime)
    states: dict[int, RecordDict] = {}
    executor = SerialExecutor(lambda: app, WorkerContext(1, {}, CLIENTS, show_errors=True))
    kept: dict[int, ConfigRecord] = {}

    class Spying(LosingGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            asked = list(messages)
            if asked[0].metadata.message_type == table.SECURE_UNMASK.name:
                kept.update({n - 2: s[SECURE_SESSION] for n, s in states.items()})
            return super().send_and_receive(asked, timeout=timeout)

    grid = Spying(EngineGrid(executor, sites, make_run(1), contexts=states), sites.node_ids)
    grid.lost, grid.seen = {table.SECURE_TRAIN.name: [LOST]}, []
    request = train_request(runtime, scenario)
    found = train_securely(grid, sites, scenario, range(CLIENTS), 1, to_content(request))
    assert found.survivors == [c for c in range(CLIENTS) if c != LOST]
    fixed = FixedPoint.for_sum(CLIENTS, scenario.secure.range)
    (masked,) = {  # one request for all
        id(request.content): request.content
        for request, _ in grid.seen
        if request.metadata.message_type == table.SECURE_TRAIN.name
    }.values()
    asked = parse(SecureTrainRequest, masked)
    updates = {c: layout.encode(summand(runtime, asked, c, fixed), fixed) for c in range(CLIENTS)}
    replies: dict[str, dict[int, RecordDict]] = {}
    requests: dict[str, dict[int, RecordDict]] = {}
    for request, reply in grid.seen:
        kind, client = request.metadata.message_type, reply.metadata.src_node_id - 2
        replies.setdefault(kind, {})[client] = reply.content
        requests.setdefault(kind, {})[client] = request.content
    return View(replies, requests, kept, updates)


def train_request(runtime: ClientRuntime, scenario: Scenario) -> TrainRequest:
    """Return what an ordinary round would send."""
    from shoal.common.models import build

    statistics = [
        local_statistics(runtime.raw(c)["train"], runtime.schema, scenario.preprocessing)
        for c in range(CLIENTS)
    ]
    spec = fit(statistics, runtime.schema, scenario.preprocessing)
    model = build(scenario.model, spec.input_spec, runtime.schema.num_classes, seed=scenario.seed)
    return TrainRequest(
        weights=weights_to_record(model.get_weights()),
        preprocessing=spec.to_json(),
        round_number=1,
        learning_rate=0.05,
        execution_mode="sequential",
        reduce=False,
        full_weight_rows=float(max(runtime.raw(c)["train"].rows for c in range(CLIENTS))),
    )


def looks_random(vector: np.ndarray, true: np.ndarray) -> bool:
    """Tell whether numbers are uniform byte by byte, and uncorrelated with a true update.

    Each test passes all but 10^-8 of truly uniform vectors: χ² of 255 degrees of freedom, and a correlation
    times √d, which is standard normal.
    """
    bytes_ = vector.view(np.uint8).reshape(-1, 4)
    expected = len(vector) / 256
    for column in bytes_.T:
        counts = np.bincount(column, minlength=256)
        if ((counts - expected) ** 2 / expected).sum() > chi2.isf(1e-8, 255):
            return False
    correlation = np.corrcoef(from_ring(vector), true)[0, 1]
    return bool(abs(correlation) * np.sqrt(len(vector)) < norm.isf(5e-9))


def test_the_server_receives_five_kinds_of_messages_and_no_number_of_a_client(view: View) -> None:
    """Every reply of the session, record by record: seconds, keys, sealed shares, a masked vector, shares."""
    stages = [
        kind.name
        for kind in (table.SECURE_KEYS, table.SECURE_SHARES, table.SECURE_TRAIN, table.SECURE_UNMASK)
    ]
    assert list(view.replies) == stages
    names = dict(zip(stages, ("keys", "shares", "masked", "unmask"), strict=True))
    for kind, by_client in view.replies.items():
        for content in by_client.values():
            assert set(content) == {"metrics", names[kind]}
            assert set(content.metric_records["metrics"]) == {"seconds"}
    sealed = b"".join(
        s
        for c in view.replies[table.SECURE_SHARES.name].values()
        for s in c.config_records["shares"]["sealed"]
    )
    counts = np.bincount(np.frombuffer(sealed, np.uint8), minlength=256)  # as random as any cipher text
    assert ((counts - len(sealed) / 256) ** 2 / (len(sealed) / 256)).sum() < chi2.isf(1e-8, 255)
    for secrets in view.secrets.values():  # nor is any secret of a client in what it has sent, in clear
        assert not [k for k in ("mask_key", "seed") if secrets[k] in sealed]
        assert secrets["share_key"] == b""  # it has done its work


def test_of_no_client_both_secrets_are_told(view: View) -> None:
    whose: dict[str, set[int]] = {"seeds": set(), "keys": set()}
    for content in view.replies[table.SECURE_UNMASK.name].values():
        for name, found in whose.items():
            found |= set(content.config_records["unmask"][f"{name}-of"])
    assert whose == {"seeds": set(view.survivors), "keys": {LOST}}


def test_each_masked_input_is_uniform_and_tells_nothing_of_the_update(view: View) -> None:
    for client in view.survivors:
        assert looks_random(view.masked(client), view.updates[client])
    # the same eyes see an update that is not masked, and the sum of all once the masks are off
    assert not looks_random(view.updates[3].astype(np.uint32), view.updates[3])


def partly_unmasked(view: View, clients: Sequence[int], knows: Sequence[int] = ()) -> np.ndarray:
    """Return the sum of some inputs less every mask that the server can compute.

    Args:
        clients: whose inputs; knows: clients who work with the server and gave it all their secrets.
    """
    total = np.sum([view.masked(c) for c in clients], axis=0, dtype=np.uint32)
    keys = {c: r.config_records["keys"] for c, r in view.replies[table.SECURE_KEYS.name].items()}
    request = view.requests[table.SECURE_TRAIN.name][clients[0]]
    session, asked = request.config_records["secure"]["session"], digest(request)
    masks = [Mask(told(view, "seeds", c), subtract=True) for c in clients]
    for other in {LOST, *knows}:
        own = KeyPair.of(told(view, "keys", LOST) if other == LOST else view.secrets[other]["mask_key"])
        for c in clients:
            if c != other:
                key = mask_key(own, keys[c]["mask"], session, asked)
                masks.append(Mask(key, subtract=c < other))
    add_masks(total, masks)
    return total


def told(view: View, name: str, owner: int) -> bytes:
    """Put together what shares the server was told of a secret, as any server could."""
    shares = {}
    for holder, content in view.replies[table.SECURE_UNMASK.name].items():
        record = content.config_records["unmask"]
        for whose, share in zip(record[f"{name}-of"], record[name], strict=True):
            if whose == owner:
                shares[holder + 1] = share_from_bytes(share)
    secret = int_to_secret(combine(shares))
    assert secret is not None
    return secret


def test_less_than_all_survivors_cannot_be_decoded_with_all_that_the_server_knows(view: View) -> None:
    """Own masks and those with the lost client are off; the masks between survivors still hide any part."""
    everybody = view.survivors
    parts = [[c] for c in everybody] + [[v for v in everybody if v != c] for c in everybody]
    for part in [*parts, everybody[:2], everybody[:4]]:
        true = np.sum([view.updates[c] for c in part], axis=0)
        assert looks_random(partly_unmasked(view, part), true), part
    whole = from_ring(partly_unmasked(view, everybody))
    np.testing.assert_array_equal(whole, np.sum([view.updates[c] for c in everybody], axis=0))


def test_clients_that_work_with_the_server_do_not_uncover_another(view: View) -> None:
    """Three of ten give it all their secrets: of the six others it still learns the sum alone."""
    honest = [c for c in view.survivors if c not in COLLUDING]
    for client in honest:
        assert looks_random(partly_unmasked(view, [client], COLLUDING), view.updates[client])
        rest = [c for c in honest if c != client]
        true = np.sum([view.updates[c] for c in rest], axis=0)
        assert looks_random(partly_unmasked(view, rest, COLLUDING), true)
    alone = from_ring(partly_unmasked(view, honest, COLLUDING))
    np.testing.assert_array_equal(alone, np.sum([view.updates[c] for c in honest], axis=0))


def test_a_server_that_asks_one_client_something_else_gets_noise(population: Population) -> None:
    """Others could be asked for nothing, so that the sum is one client's: but then masks do not cancel."""

    class TwoFaced(LosingGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            asked = list(messages)
            if asked[0].metadata.message_type == table.SECURE_VECTOR.name:
                members = [*asked[0].content.config_records["secure"]["members"], 99]
                secure = ConfigRecord({**asked[0].content.config_records["secure"], "members": members})
                other = RecordDict({**asked[0].content, "secure": secure})
                asked[3] = Message(other, asked[3].metadata.dst_node_id, table.SECURE_VECTOR.name)
            return super().send_and_receive(asked, timeout=timeout)

    total, _ = sum_rows(population, {}, kind=TwoFaced)
    # A sum of rows is whole; one uniform in levels of 7e-6 is so by chance once in 10^8, for three numbers.
    assert np.abs(total - np.rint(total)).max() > 1e-3


# -- differential privacy, and the other ways to reach clients ----------------------------------


def test_noise_is_in_the_sum_as_asked_and_the_update_is_clipped(population: Population) -> None:
    """Sum less the clipped updates is N(0, (z C)² n / n_min) in each of d numbers, with n = 10, n_min = 7.

    The standard error of a standard deviation from d numbers is 1 / √(2 d); four are allowed.
    """
    z, norm_ = 0.5, 0.1
    private = ("privacy.unit=client", f"privacy.clip_norm={norm_}", f"privacy.noise_multiplier={z}")
    scenario = scenario_of("secure.aggregation=true", *private)
    identify_process(1)
    sites, runtime = Sites(CLIENTS, population.name), ClientRuntime(scenario, population)
    app, request = make_client_app(runtime), train_request(runtime, scenario)
    content = to_content(request)
    executor = SerialExecutor(lambda: app, WorkerContext(1, {}, CLIENTS, show_errors=True))
    grid = EngineGrid(executor, sites, make_run(1))
    noise = SumNoise(update=z * norm_)
    found = train_securely(grid, sites, scenario, range(CLIENTS), 1, content, noise=noise).sum
    assert found.weight == 0  # not told
    assert np.isnan(found.loss)  # would tell, as it has no noise
    clipped = []
    for client in range(CLIENTS):
        part = train_cohort(runtime, request, [client])[0].content
        assert part is not None
        update = record_to_weights(part.array_records["arrays"])
        clipped.append(np.concatenate([u.reshape(-1) for u in update]))
        assert np.linalg.norm(clipped[-1]) <= norm_ * (1 + 1e-6)
    rest = np.concatenate([u.reshape(-1) for u in found.updates]) - np.sum(clipped, axis=0)
    expected = z * norm_ * np.sqrt(CLIENTS / 7)
    assert abs(rest.std() / expected - 1) < 4 / np.sqrt(2 * len(rest))
    assert abs(rest.mean()) < 4 * expected / np.sqrt(len(rest))
    less = SumNoise(update=0.99 * z * norm_)
    with pytest.raises(TooFewRepliesError, match=r"this client's scenario requires 0\.5"):
        train_securely(grid, sites, scenario, range(CLIENTS), 1, content, noise=less)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["direct", "grpc"])
def test_clients_elsewhere_give_the_same_bits(
    population: Population, transport: str, ray_session: None
) -> None:
    """Masks are other ones each time, and cancel exactly."""
    secure = ("secure.aggregation=true", "training.local_steps=2")
    serial, _, _ = run(scenario_of(*secure), population)
    over = ("resources.backend=ray", "resources.workers=2", f"resources.transport={transport}")
    wire, rounds, _ = run(scenario_of(*secure, *over), population, {table.SECURE_KEYS.name: []})
    np.testing.assert_array_equal(flat(wire), flat(serial))
    assert rounds.rows[1][0].succeeded == CLIENTS
