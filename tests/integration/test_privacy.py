"""Differential privacy of whole clients, from the config to the weights that leave."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from watching import Seen, watching

from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import BudgetError
from shoal.common.messages import table
from shoal.common.messages.names import ARRAYS, METRICS_RECORD, WEIGHT
from shoal.common.privacy.noise import SLACK, randomness, with_noise
from shoal.common.privacy.plan import make_plan
from shoal.common.weights import record_to_weights
from shoal.server.app import Hooks
from shoal.simulations import datasets
from shoal.simulations.results import RunFolder
from shoal.simulations.run import coordinate, resume_run, run_scenario

CENTRAL = ("privacy.unit=client", "privacy.clip_norm=0.5", "model.name=mlp", "model.args={}")


def scenario(*given: str, name: str = "digits", rounds: int = 3) -> Scenario:
    settings = [f"training.rounds={rounds}", "output.bootstrap=0", "resources.backend=serial", *given]
    return load_scenario(name, settings)


def watched(asked: Scenario) -> Seen:
    seen: Seen = []
    population = datasets.load_population(asked)
    coordinate(asked, population, Hooks([], lambda fitted: None), lambda outcome: None, watching(seen))
    return seen


def arrays(content: object) -> list[np.ndarray]:
    return record_to_weights(content.array_records[ARRAYS])  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=["sequential", "stacked"])
def central(request: pytest.FixtureRequest) -> tuple[Scenario, Seen]:
    asked = scenario(*CENTRAL, "privacy.noise_multiplier=0.1", f"resources.execution_mode={request.param}")
    return asked, watched(asked)


def test_what_leaves_is_a_clipped_update(central: tuple[Scenario, Seen]) -> None:
    """Every client's own update has a norm of at most C = 0.5; a mean of several has no more either."""
    _, seen = central
    answers = [reply for request, reply in seen if request.metadata.message_type == table.TRAIN.name]
    assert answers
    norms = [math.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in arrays(r.content))) for r in answers]
    assert max(norms) <= 0.5 * (1 + 1e-6)
    assert min(norms) > 0


def test_the_next_model_is_the_fixed_denominator_mean_with_the_seed_s_noise(
    central: tuple[Scenario, Seen],
) -> None:
    """θ' = θ + (Σ w u + noise) / 10, with the noise of round 1 drawn again here."""
    asked, seen = central
    rounds: dict[int, list[tuple[object, object]]] = {}
    for request, reply in seen:
        if request.metadata.message_type == table.TRAIN.name:  # all messages of a round share their content
            rounds.setdefault(id(request.content), []).append((request.content, reply.content))
    first, second = list(rounds.values())[:2]
    start, after = arrays(first[0][0]), arrays(second[0][0])
    total = [np.zeros(a.shape) for a in start]
    clients = 0.0
    for _, content in first:
        weight = content.metric_records[METRICS_RECORD][WEIGHT]  # type: ignore[attr-defined]
        clients += weight
        for into, update in zip(total, arrays(content), strict=True):
            into += weight * update.astype(np.float64)
    assert clients == 10  # uniform weights: everybody counts 1
    draws = randomness("seeded", asked.seed, "server-noise", dispatch=1)
    for before, update, found in zip(start, total, after, strict=True):
        noisy = with_noise(update.reshape(-1), 0.1 * 0.5 * SLACK, draws).reshape(update.shape)
        np.testing.assert_array_equal(found, (before + noisy / 10).astype(np.float32))


def test_bounded_weights_grow_with_rows_up_to_one() -> None:
    """A client with n training rows counts n / 100, and one with more than 100 counts 1."""
    given = ("privacy.noise_multiplier=0.1", "privacy.weights=bounded", "resources.execution_mode=sequential")
    # every update of the cohort on its own: a strategy that looks at them is refused, so ask clients apart
    seen = watched(scenario(*CENTRAL, *given, "resources.clients_per_chunk=1", rounds=1))
    numbers = [
        r.content.metric_records[METRICS_RECORD]
        for q, r in seen
        if q.metadata.message_type == table.TRAIN.name
    ]
    assert len(numbers) == 10
    for told in numbers:
        assert told[WEIGHT] == min(told["num-examples"] / 100, 1)  # type: ignore[operator]
    assert len({told[WEIGHT] for told in numbers}) > 2


def test_local_noise_is_added_before_anything_leaves() -> None:
    """C = 1e-3 and z = 100: noise of 0.1 a number hides an update of norm 1e-3 altogether.

    650 weights of 10 clients: the sample deviation deviates by 0.1 / √13,000.
    """
    asked = scenario(
        "privacy.unit=local", "privacy.noise_multiplier=100", "privacy.clip_norm=1e-3",
        "model.name=logistic", "model.args={}", "resources.clients_per_chunk=1", rounds=1,
    )  # fmt: skip
    seen = [(q, r) for q, r in watched(asked) if q.metadata.message_type == table.TRAIN.name]
    assert len(seen) == 10
    moves = [update.ravel() for _, r in seen for update in arrays(r.content)]
    drawn = np.concatenate(moves).astype(np.float64)
    expected = 0.1 * SLACK
    assert abs(drawn.std() - expected) < 5 * expected / math.sqrt(2 * drawn.size)
    first, second = np.concatenate(moves[:2]), np.concatenate(moves[2:4])
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(first.size)


def run(directory: Path, *given: str, rounds: int = 6) -> RunFolder:
    asked = scenario(f"output.directory={json.dumps(str(directory))}", *given, name="linear", rounds=rounds)
    return RunFolder.open(run_scenario(asked))


PRIVATE = ("privacy.unit=client", "privacy.clipping=adaptive", "strategy.name=FedAdam",
           "strategy.clients_per_round=5", "strategy.sampling=poisson")  # fmt: skip


def test_a_run_tells_what_it_has_spent_round_by_round(tmp_path: Path) -> None:
    folder = run(tmp_path, *PRIVATE, "privacy.epsilon=8")
    plan = make_plan(folder.scenario(), 10)
    told = [row.epsilon for row in folder.round_rows()]
    assert math.isnan(told[0])  # the initial model has seen no row
    assert told[1:] == [plan.epsilon(k) for k in range(1, 7)]
    assert told[-1] <= 8
    promise = folder.summary()["privacy"]
    assert promise["epsilon"] == told[-1]
    assert (promise["unit"], promise["delta"], promise["budget"]) == ("client", 1e-5, 8)
    assert "seeded" in promise["noise_source"]
    assert "Poisson" in promise["sampling"]
    assert folder.rounds().column("epsilon").to_pylist()[1:] == told[1:]


def test_a_run_stops_before_its_budget_is_passed(tmp_path: Path) -> None:
    given = (*PRIVATE, "privacy.noise_multiplier=2")
    plan = make_plan(scenario(*given, name="linear"), 10)
    budget = (plan.epsilon(3) + plan.epsilon(4)) / 2
    folder = run(tmp_path, *given, f"privacy.epsilon={budget}")
    assert folder.status() == "stopped early"
    assert [row.round for row in folder.round_rows()] == [0, 1, 2, 3]
    assert folder.round_rows()[-1].epsilon == plan.epsilon(3)
    assert any("privacy budget" in text for _, text in folder.messages())


def test_a_budget_that_allows_no_round_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="does not allow round 1"):
        run(tmp_path, *PRIVATE, "privacy.noise_multiplier=2", "privacy.epsilon=0.1")


def test_a_resumed_run_goes_on_with_its_ledger_and_to_the_same_bits(tmp_path: Path) -> None:
    given = (*PRIVATE, "privacy.epsilon=8")
    whole = run(tmp_path / "whole", *given)

    class StopError(Exception):
        pass

    class StopsAfter4:
        def on_message(self, text: str) -> None: ...
        def on_sites(self, rows: object) -> None: ...
        def on_round(self, row: object, clients: object) -> None:
            if row.round == 4:  # type: ignore[attr-defined]  # before its checkpoint
                raise StopError

    asked = scenario(f"output.directory={json.dumps(str(tmp_path))}", *given, name="linear", rounds=6)
    with pytest.raises(StopError):
        run_scenario(asked, [StopsAfter4()])
    folder = RunFolder.open(next(tmp_path.glob("linear-*")))
    assert len((folder.path / "privacy.jsonl").read_text().splitlines()) == 4
    resume_run(folder, folder.scenario())
    assert [row.epsilon for row in folder.round_rows()[1:]] == [r.epsilon for r in whole.round_rows()[1:]]
    assert [row.metrics for row in folder.round_rows()] == [row.metrics for row in whole.round_rows()]
    # the round that was done again had the noise that it had before, and was charged once
    assert len((folder.path / "privacy.jsonl").read_text().splitlines()) == 6
