"""Sessions of secure aggregation over a Grid: sums, losses on the way, noise, and clients elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from shoal.clients.app import make_client_app
from shoal.clients.cohort import train_cohort
from shoal.clients.runtime import ClientRuntime
from shoal.clients.worker import WorkerContext
from shoal.common.errors import TooFewRepliesError
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages import table
from shoal.common.messages.schema import to_content
from shoal.common.privacy.plan import make_plan
from shoal.common.schema import Population
from shoal.common.secure.fixed_point import ROUNDING, FixedPoint
from shoal.common.sites import Sites
from shoal.common.weights import record_to_weights
from shoal.server.app import Hooks, Outcome
from shoal.server.checkpoint import Checkpoints
from shoal.server.secure.training import train_securely
from shoal.simulations import datasets
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor
from shoal.simulations.run import coordinate
from tests.helpers.secure_sessions import (
    CLIENTS,
    Rounds,
    flat,
    losing,
    run,
    scenario_of,
    sum_rows,
    train_request,
    updates_in_clear,
)


@pytest.fixture(scope="module")
def population() -> Population:
    return datasets.load_population(scenario_of())


# Every update on its own: Krum, of one client, asks for them.
ALONE = ("resources.clients_per_chunk=1",)


@pytest.fixture(scope="module")
def plain(population: Population) -> tuple[Outcome, Rounds, dict[int, np.ndarray]]:
    outcome, rounds, seen = run(scenario_of(*ALONE), population)
    return outcome, rounds, updates_in_clear(seen)


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


def test_any_vector_can_be_added_up(population: Population) -> None:
    """Rows of the splits are whole numbers below 1000, of which a level is 1000 / 2^27: the sum is exact."""
    runtime = ClientRuntime(scenario_of(), population)
    rows = [[runtime.raw(c)[s].rows for s in ("train", "validation", "test")] for c in range(CLIENTS)]
    total, _ = sum_rows(population, {})
    assert np.rint(total).tolist() == np.sum(rows, axis=0).tolist()
    without, _ = sum_rows(population, {table.SECURE_VECTOR.name: [3]})
    assert np.rint(without).tolist() == np.sum([r for c, r in enumerate(rows) if c != 3], axis=0).tolist()


# -- differential privacy, and the other ways to reach clients ----------------------------------


def test_noise_is_in_the_sum_as_planned_and_the_update_is_clipped(population: Population) -> None:
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
    plan = make_plan(scenario, CLIENTS)
    found = train_securely(grid, sites, scenario, range(CLIENTS), 1, content, plan=plan).sum
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
